// Keeps the page's changing part as the server last rendered it, and says when it cannot.
"use strict";
(() => {
  const LOST_AFTER_MS = 3000; // a short break, as at a restart of the stream, is not shown
  const SILENT_AFTER_MS = 12000; // the server speaks at least every 5 s
  const RETRY_MS = 3000;
  const live = document.getElementById("live");
  const text = document.getElementById("connection-text");
  let source = null;
  let lostTimer = 0;
  let silentTimer = 0;
  let retryTimer = 0;

  function connect() {
    clearTimeout(retryTimer);
    retryTimer = 0;
    if (source) source.close();
    source = new EventSource("events");
    source.addEventListener("fragment", (event) => {
      show(event.data);
      connected();
    });
    source.addEventListener("error", () => {
      expectLoss();
      // A refused stream is not tried again by the browser.
      if (source.readyState === EventSource.CLOSED) retry();
    });
    watchSilence();
  }

  function connected() {
    clearTimeout(lostTimer);
    lostTimer = 0;
    document.body.classList.remove("lost");
    document.body.classList.add("live");
    say("Live");
    watchSilence();
  }

  function watchSilence() {
    clearTimeout(silentTimer);
    silentTimer = setTimeout(() => {
      lost();
      retry();
    }, SILENT_AFTER_MS);
  }

  function expectLoss() {
    if (!lostTimer) lostTimer = setTimeout(lost, LOST_AFTER_MS);
  }

  function lost() {
    document.body.classList.remove("live");
    document.body.classList.add("lost");
    say("Connection lost: the figures are old. Trying again …");
  }

  function retry() {
    if (!retryTimer) retryTimer = setTimeout(connect, RETRY_MS);
  }

  function say(words) {
    if (text.textContent !== words) text.textContent = words;
  }

  function show(html) {
    const next = new DOMParser().parseFromString(html, "text/html").body;
    renew(live, next);
  }

  // Makes the children of `old` equal to those of `next` and keeps every node that can stay, so that focus,
  // scrolling and selected text stay too.
  function renew(old, next) {
    const keyed = new Map();
    for (const child of old.children) {
      if (child.dataset.key) keyed.set(child.dataset.key, child);
    }
    let at = old.firstChild;
    for (const wanted of [...next.childNodes]) {
      const key = wanted.dataset && wanted.dataset.key;
      let match = key ? keyed.get(key) : at;
      if (key) keyed.delete(key);
      if (!match || !alike(match, wanted, key)) {
        old.insertBefore(document.importNode(wanted, true), at);
        continue;
      }
      if (match === at) at = at.nextSibling;
      else old.insertBefore(match, at);
      if (match.nodeType === Node.ELEMENT_NODE) {
        attributes(match, wanted);
        renew(match, wanted);
      } else if (match.nodeValue !== wanted.nodeValue) {
        match.nodeValue = wanted.nodeValue;
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  }

  function alike(a, b, key) {
    const sameKind = a.nodeType === b.nodeType && a.nodeName === b.nodeName;
    return sameKind && (key !== undefined || !(a.dataset && a.dataset.key));
  }

  function attributes(old, next) {
    for (const { name } of [...old.attributes]) {
      if (!next.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of next.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
  }

  say("Connecting …");
  connect();
})();
