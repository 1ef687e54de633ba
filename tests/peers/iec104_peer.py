#!/usr/bin/env python3
"""IEC 60870-5-104 master and outstation (c104, which is lib60870-C) for tests of what lies between them.

  iec104_peer.py server   --port 2404 [--rate 200] [--secs 20] [--log s.json]
  iec104_peer.py client   --host 127.0.0.1 --port 2404 [--secs 15] [--commands 50] [--log c.json]
  iec104_peer.py selftest [--port 2404] [--via HOST:PORT] [--secs 10] [--rate 200] [--commands 50]
  iec104_peer.py wire     --port P [--secs 10]

selftest starts one server process on 127.0.0.1:PORT and one client process that connects to --via (the gateway's
plain side; default: the server itself), joins the two logs and prints one JSON line. Exit code 0 only if
 * the general interrogation delivered every monitored point,
 * every command (direct and select-before-execute) was confirmed by an ACT_CON frame and applied in order,
 * no spontaneous value was lost, doubled or reordered (each carries its own sequence number),
 * the byte streams that the two stacks wrote are exactly those that the other end read (SHA-256, both directions).

wire captures port P of the loopback interface with tshark. Exit code 0 only if the capture is not empty and shows no
frame of this dialogue.

50 monitored points: 30 M_ME_NC_1 and 10 M_ME_TF_1 spontaneous, 10 M_SP_NA_1 cyclic; 4 C_SC_NA_1 direct commands,
2 C_SE_NC_1 select-and-execute.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib

import c104

CA = 47
ME = list(range(1000, 1030))  # M_ME_NC_1, spontaneous, float sequence (exact to 2^24)
BO = list(range(2000, 2010))  # M_ME_TF_1, spontaneous, float sequence + CP56Time2a
SP = list(range(3000, 3010))  # M_SP_NA_1, cyclic
SC = list(range(5000, 5004))  # C_SC_NA_1, direct
SE = list(range(6000, 6002))  # C_SE_NC_1, select and execute


class Raw:
    """counts and hashes one direction of APDU bytes as the stack saw them"""

    def __init__(self):
        self.h, self.bytes, self.frames, self.iframes, self.con_pos, self.con_neg = hashlib.sha256(), 0, 0, 0, 0, 0
        self.gi = {}
        self.activations, self.executes = 0, {}
        self.l = threading.Lock()

    def add(self, data):
        with self.l:
            self.h.update(data)
            self.bytes += len(data)
            self.frames += 1
            if len(data) >= 6 and not data[2] & 1:
                self.iframes += 1
                if len(data) > 8 and data[6] == 100 and data[8] & 0x7F in (7, 10):
                    self.gi[data[8] & 0x3F] = self.gi.get(data[8] & 0x3F, 0) + 1
                if len(data) > 19 and data[6] == 50 and data[8] & 0x3F == 6 and not data[19] & 0x80:  # execute
                    ioa = int.from_bytes(data[12:15], "little")
                    self.executes[ioa] = self.executes.get(ioa, 0) + 1
                if len(data) > 8 and data[6] in (45, 50) and data[8] & 0x3F == 6:  # ACT of C_SC_NA_1 / C_SE_NC_1
                    self.activations += 1
                if len(data) > 8 and data[6] in (45, 50) and data[8] & 0x3F == 7:  # ACT_CON of C_SC_NA_1 / C_SE_NC_1
                    if data[8] & 0x40:
                        self.con_neg += 1
                    else:
                        self.con_pos += 1

    def out(self):
        return dict(
            sha256=self.h.hexdigest(),
            bytes=self.bytes,
            apdus=self.frames,
            i_apdus=self.iframes,
            con_pos=self.con_pos,
            con_neg=self.con_neg,
            activations=self.activations,
            gi_con=self.gi.get(7, 0),
            gi_term=self.gi.get(10, 0),
        )


def params(p):
    p.send_window_size, p.receive_window_size = 12, 8  # k, w of the standard


# ---------------------------------------------------------------- server
def server(a):
    sv = c104.Server(ip="127.0.0.1", port=a.port, tick_rate_ms=50, max_connections=4)
    params(sv.protocol_parameters)
    st = sv.add_station(common_address=CA)
    pts = {}
    for i in ME:
        pts[i] = st.add_point(io_address=i, type=c104.Type.M_ME_NC_1)
    for i in BO:
        pts[i] = st.add_point(io_address=i, type=c104.Type.M_ME_TF_1)
    for i in SP:
        pts[i] = st.add_point(io_address=i, type=c104.Type.M_SP_NA_1, report_ms=a.cyclic_ms)
    applied = []
    tx, rx = Raw(), Raw()

    def on_cmd(point: c104.Point, previous_info: c104.Information, message: c104.IncomingMessage) -> c104.ResponseState:
        applied.append([point.io_address, float(point.value)])
        return c104.ResponseState.SUCCESS

    def on_tx(server: c104.Server, data: bytes) -> None:
        tx.add(data)

    def on_rx(server: c104.Server, data: bytes) -> None:
        rx.add(data)

    for i in SC:
        p = st.add_point(io_address=i, type=c104.Type.C_SC_NA_1)
        p.on_receive(callable=on_cmd)
    for i in SE:
        p = st.add_point(io_address=i, type=c104.Type.C_SE_NC_1, command_mode=c104.CommandMode.SELECT_AND_EXECUTE)
        p.on_receive(callable=on_cmd)
    sv.on_send_raw(callable=on_tx)
    sv.on_receive_raw(callable=on_rx)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    for i in ME:
        pts[i].value = 0.0
    for i in BO:
        pts[i].value = 0.0
    for i in SP:
        pts[i].value = False
    sv.start()
    print("server up on 127.0.0.1:%d" % a.port, flush=True)
    t0 = time.monotonic()
    while not sv.has_active_connections and not stop.is_set() and time.monotonic() - t0 < a.wait:
        time.sleep(0.02)
    time.sleep(a.settle)  # let the client's GI finish
    spont = ME + BO
    seq = {i: 0 for i in spont}
    sent = []
    refused = 0
    n = 0
    begin = time.monotonic()
    while not stop.is_set() and time.monotonic() - begin < a.secs:
        due = int((time.monotonic() - begin) * a.rate)
        while n < due:
            i = spont[n % len(spont)]
            seq[i] += 1
            n += 1
            pts[i].value = float(seq[i])
            t = time.monotonic()
            if pts[i].transmit(cause=c104.Cot.SPONTANEOUS):
                sent.append((i, seq[i], t))
            else:
                refused += 1
        time.sleep(0.002)
    sent_until = time.monotonic()
    while not stop.is_set() and time.monotonic() - sent_until < a.linger:
        time.sleep(0.05)
    res = dict(
        role="server",
        spontaneous_sent=len(sent),
        refused=refused,
        commands_applied=applied,
        tx=tx.out(),
        rx=rx.out(),
        sent=sent,
    )
    if a.log:
        json.dump(res, open(a.log, "w"))
    res.pop("sent")
    res["commands_applied"] = len(applied)
    print(json.dumps(res), flush=True)
    sv.stop()


# ---------------------------------------------------------------- client
def client(a):
    cl = c104.Client(tick_rate_ms=50, command_timeout_ms=5000)
    con = cl.add_connection(ip=a.host, port=a.port, init=c104.Init.NONE)
    params(con.protocol_parameters)
    st = con.add_station(common_address=CA)
    tx, rx = Raw(), Raw()

    def on_tx(connection: c104.Connection, data: bytes) -> None:
        tx.add(data)

    def on_rx(connection: c104.Connection, data: bytes) -> None:
        rx.add(data)

    con.on_send_raw(callable=on_tx)
    con.on_receive_raw(callable=on_rx)
    got, gi, cyc, other = [], set(), [0], [0]

    def on_pt(point: c104.Point, previous_info: c104.Information, message: c104.IncomingMessage) -> c104.ResponseState:
        c = message.cot
        if c == c104.Cot.SPONTANEOUS:
            got.append((point.io_address, int(point.value), time.monotonic()))
        elif c == c104.Cot.INTERROGATED_BY_STATION:
            gi.add(point.io_address)
        elif c == c104.Cot.PERIODIC:
            cyc[0] += 1
        else:
            other[0] += 1
        return c104.ResponseState.SUCCESS

    for i in ME:
        st.add_point(io_address=i, type=c104.Type.M_ME_NC_1).on_receive(callable=on_pt)
    for i in BO:
        st.add_point(io_address=i, type=c104.Type.M_ME_TF_1).on_receive(callable=on_pt)
    for i in SP:
        st.add_point(io_address=i, type=c104.Type.M_SP_NA_1).on_receive(callable=on_pt)
    cmds = [st.add_point(io_address=i, type=c104.Type.C_SC_NA_1) for i in SC]
    cmds += [
        st.add_point(io_address=i, type=c104.Type.C_SE_NC_1, command_mode=c104.CommandMode.SELECT_AND_EXECUTE)
        for i in SE
    ]
    t0 = time.monotonic()
    cl.start()  # connects by itself; an extra con.connect() races and can leave the link muted (no STARTDT)
    # is_connected is already true before STARTDT is confirmed; commands sent then are silently dropped
    while con.state != c104.ConnectionState.OPEN and time.monotonic() - t0 < 20:
        time.sleep(0.02)
        if con.state == c104.ConnectionState.OPEN_MUTED and time.monotonic() - t0 > 3:
            con.unmute()
    connect_s = time.monotonic() - t0
    if con.state != c104.ConnectionState.OPEN:
        print(json.dumps(dict(role="client", error="no connection", state=str(con.state))))
        sys.exit(2)
    ti = time.monotonic()
    gi_ok = con.interrogation(
        common_address=CA, cause=c104.Cot.ACTIVATION, qualifier=c104.Qoi.STATION, wait_for_response=True
    )
    tg = time.monotonic()
    while len(gi) < len(ME) + len(BO) + len(SP) and time.monotonic() - tg < 5:
        time.sleep(0.01)
    gi_s = time.monotonic() - ti
    clock_ok = con.clock_sync(common_address=CA, wait_for_response=True)
    ok = fail = again = 0
    bad = []
    rtt = []
    sent_cmds = []
    want_executes = {}
    end = time.monotonic() + a.secs
    gap = a.secs / max(1, a.commands)
    for n in range(a.commands):
        p = cmds[n % len(cmds)]
        p.value = bool(n & 1) if p.type == c104.Type.C_SC_NA_1 else float(n)
        sent_cmds.append([p.io_address, float(p.value)])
        want_executes[p.io_address] = want_executes.get(p.io_address, 0) + 1
        t = time.monotonic()
        done, executed = p.transmit(cause=c104.Cot.ACTIVATION), tx.executes.get(p.io_address, 0)
        while not done and p.io_address in SE and executed < want_executes[p.io_address] and again < 3:
            # the stack overlooked the confirmation of its selection and sent no execute: select again, as a master does
            again += 1
            done, executed = p.transmit(cause=c104.Cot.ACTIVATION), tx.executes.get(p.io_address, 0)
        if done:
            ok += 1
        else:
            fail += 1
            bad.append([n, p.io_address])
        rtt.append((time.monotonic() - t) * 1e3)
        time.sleep(max(0, gap - (time.monotonic() - t)))
    while time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(1.0)
    rtt.sort()
    res = dict(
        role="client",
        connect_s=round(connect_s, 3),
        gi_ok=bool(gi_ok),
        gi_points=len(gi),
        gi_s=round(gi_s, 3),
        clock_ok=bool(clock_ok),
        commands_ok=ok,
        commands_failed=fail,
        selected_again=again,
        bad=bad,
        cmd_rtt_ms_p50=round(rtt[len(rtt) // 2], 2) if rtt else None,
        cmd_rtt_ms_max=round(rtt[-1], 2) if rtt else None,
        spontaneous_got=len(got),
        cyclic_got=cyc[0],
        other=other[0],
        still_connected=con.is_connected,
        tx=tx.out(),
        rx=rx.out(),
        got=got,
        sent_cmds=sent_cmds,
    )
    if a.log:
        json.dump(res, open(a.log, "w"))
    res.pop("got")
    res.pop("sent_cmds")
    print(json.dumps(res), flush=True)
    os._exit(0)  # keep the TCP teardown out of the byte comparison


# ---------------------------------------------------------------- both
def selftest(a):
    via = a.via or "127.0.0.1:%d" % a.port
    host, port = via.rsplit(":", 1)
    base = "/tmp/iec104_%d" % os.getpid()
    sl, cl = base + "_s.json", base + "_c.json"
    me = [sys.executable, os.path.abspath(__file__)]
    s = subprocess.Popen(
        me
        + [
            "server",
            "--port",
            str(a.port),
            "--secs",
            str(a.secs),
            "--rate",
            str(a.rate),
            "--cyclic-ms",
            str(a.cyclic_ms),
            "--linger",
            "60",
            "--log",
            sl,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    s.stdout.readline()
    time.sleep(0.3)
    c = subprocess.run(
        me
        + [
            "client",
            "--host",
            host,
            "--port",
            port,
            "--secs",
            str(a.secs + 2),
            "--commands",
            str(a.commands),
            "--log",
            cl,
        ],
        stdout=subprocess.PIPE,
        text=True,
        timeout=a.secs + 60,
    )
    s.terminate()
    s.wait(20)
    if c.returncode:
        print(c.stdout.strip())
        sys.exit(2)
    S, C = json.load(open(sl)), json.load(open(cl))
    os.unlink(sl)
    os.unlink(cl)
    sent = {(i, q): t for i, q, t in S["sent"]}
    seen = {}
    dup = 0
    order = 0
    last = {}
    lat = []
    for i, q, t in C["got"]:
        if (i, q) in seen:
            dup += 1
            continue
        seen[(i, q)] = t
        if q <= last.get(i, 0):
            order += 1
        last[i] = q
        if (i, q) in sent:
            lat.append((t - sent[(i, q)]) * 1e3)
    lost = [k for k in sent if k not in seen]
    invented = [k for k in seen if k not in sent]
    lat.sort()
    pc = lambda f: round(lat[min(len(lat) - 1, int(f * len(lat)))], 2) if lat else None
    # the client leaves while the server may still be writing its last cyclic frames: compare the s->c stream only
    # when lengths agree, else report the byte gap; c->s must always be exact.
    out = dict(
        sent=len(sent),
        refused=S["refused"],
        got=len(seen),
        lost=len(lost),
        dup=dup,
        reordered=order,
        invented=len(invented),
        gi_points=C["gi_points"],
        gi_con_term=[C["rx"]["gi_con"], C["rx"]["gi_term"]],
        clock_ok=C["clock_ok"],
        commands_ok=C["commands_ok"],
        commands_unconfirmed_by_api=C["commands_failed"],
        act_con=[C["rx"]["con_pos"], C["rx"]["con_neg"]],
        act_con_expected=sum(2 if i in SE else 1 for i, _ in C["sent_cmds"]) + C["selected_again"],
        activations=C["tx"]["activations"],
        selected_again=C["selected_again"],
        commands_applied_match=S["commands_applied"] == C["sent_cmds"],
        cyclic_got=C["cyclic_got"],
        spont_ms_p50=pc(0.5),
        spont_ms_p99=pc(0.99),
        spont_ms_max=pc(1),
        cmd_rtt_ms_p50=C["cmd_rtt_ms_p50"],
        cmd_rtt_ms_max=C["cmd_rtt_ms_max"],
        s2c_bytes=[S["tx"]["bytes"], C["rx"]["bytes"]],
        s2c_sha_equal=S["tx"]["sha256"] == C["rx"]["sha256"],
        c2s_bytes=[C["tx"]["bytes"], S["rx"]["bytes"]],
        c2s_sha_equal=C["tx"]["sha256"] == S["rx"]["sha256"],
        s2c_i_apdus=S["tx"]["i_apdus"],
        still_connected=C["still_connected"],
    )
    want = len(ME) + len(BO) + len(SP)
    # c104's transmit() can miss a confirmation that arrived at once: judge by the frames, not by its bool
    good = (
        out["gi_con_term"] == [1, 1]
        and out["gi_points"] == want
        and out["activations"] == out["act_con_expected"]
        and out["act_con"] == [out["act_con_expected"], 0]
        and out["commands_applied_match"]
        and not lost
        and not dup
        and not order
        and not invented
        and not S["refused"]
        and out["c2s_sha_equal"]
        and out["s2c_sha_equal"]
        and out["still_connected"]
    )
    out["pass"] = bool(good)
    print(json.dumps(out))
    sys.exit(0 if good else 1)


# ---------------------------------------------------------------- is anything readable on the wire?
def wire(a):
    """capture --port on lo while something else runs, then ask tshark's own 104 dissector and three crude detectors"""
    f = a.pcap or "/tmp/wire_%d.pcap" % a.port
    if not a.pcap:
        subprocess.run(
            [
                "tshark",
                "-q",
                "-i",
                "lo",
                "-f",
                "tcp port %d or udp port %d" % (a.port, a.port),
                "-a",
                "duration:%d" % a.secs,
                "-w",
                f,
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    sh = lambda *x: subprocess.run(
        ["tshark", "-r", f, "-d", "tcp.port==%d,iec60870_104" % a.port] + list(x),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout
    # the dissector resynchronises on any 0x68, so ciphertext yields dozens of chance ASDUs: count only OUR station and types
    asdu = sh(
        "-Y",
        "iec60870_asdu.addr == %d && iec60870_asdu.typeid in {1,13,36,45,50,100,103}" % CA,
        "-T",
        "fields",
        "-e",
        "iec60870_asdu.typeid",
    ).split()
    chance = sh("-Y", "iec60870_asdu", "-T", "fields", "-e", "iec60870_asdu.typeid").split()
    apci = sh("-Y", "iec60870_104", "-T", "fields", "-e", "frame.number").split()
    pay = b"".join(
        bytes.fromhex(x.replace(":", ""))
        for x in sh("-T", "fields", "-e", "tcp.payload", "-e", "udp.payload").replace("\t", "\n").split()
        if x
    )
    n = len(pay)
    hist = [0] * 256
    for b in pay:
        hist[b] += 1
    chi = sum((h - n / 256) ** 2 / (n / 256) for h in hist) if n else 0
    needles = [int(i).to_bytes(3, "little") + x for i in (ME + BO) for x in (b"",)]
    hits = sum(pay.count(bytes([13, 1, 3, 0, CA, 0]) + k) for k in needles[: len(ME)]) + sum(
        pay.count(bytes([36, 1, 3, 0, CA, 0]) + k) for k in needles[len(ME) :]
    )
    z = len(zlib.compress(pay, 9)) / n if n else 0
    out = dict(
        payload_bytes=n,
        apci_frames=len(apci),
        asdus_any=len(chance),
        asdus_ours=len(asdu),
        plaintext_asdu_hits=hits,
        zlib_ratio=round(z, 4),
        chi2_255df=round(chi, 1),
        chi2_ok_below=330,
    )
    out["opaque"] = bool(n > 2000 and not asdu and not hits and z > 0.9)
    print(json.dumps(out))
    sys.exit(0 if out["opaque"] else 1)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    sp = p.add_subparsers(dest="m", required=True)
    s = sp.add_parser("server")
    s.add_argument("--port", type=int, default=2404)
    s.add_argument("--rate", type=float, default=200)
    s.add_argument("--secs", type=float, default=10)
    s.add_argument("--cyclic-ms", type=int, default=1000)
    s.add_argument("--wait", type=float, default=60)
    s.add_argument("--settle", type=float, default=1.5)
    s.add_argument("--linger", type=float, default=5)
    s.add_argument("--log")
    c = sp.add_parser("client")
    c.add_argument("--host", default="127.0.0.1")
    c.add_argument("--port", type=int, default=2404)
    c.add_argument("--secs", type=float, default=12)
    c.add_argument("--commands", type=int, default=50)
    c.add_argument("--log")
    t = sp.add_parser("selftest")
    t.add_argument("--port", type=int, default=2404)
    t.add_argument("--via")
    t.add_argument("--secs", type=float, default=10)
    t.add_argument("--rate", type=float, default=200)
    t.add_argument("--commands", type=int, default=50)
    t.add_argument("--cyclic-ms", type=int, default=1000)
    w = sp.add_parser("wire")
    w.add_argument("--port", type=int, required=True)
    w.add_argument("--secs", type=int, default=10)
    w.add_argument("--pcap")
    a = p.parse_args()
    {"server": server, "client": client, "selftest": selftest, "wire": wire}[a.m](a)
