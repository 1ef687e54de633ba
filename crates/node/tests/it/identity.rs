//! Who a certificate names, of which kind it may be, and how it is replaced and revoked while the site runs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::raw::{Https, tls};
use crate::world::{World, ok_of, str_of, wait_until};

/// The network's authority, as `qurrent network init` made it.
fn authority(world: &World) -> Issuer<'static, KeyPair> {
    let key = KeyPair::from_pem(&fs::read_to_string(world.path("authority/ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Qurrent network line");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Issuer::new(params, key)
}

/// Writes a certificate and key of any kind, and the authority beside them.
fn issue(world: &World, folder: &Path, name: &str, names: Vec<SanType>, kind: &'static SignatureAlgorithm) {
    let key = KeyPair::generate_for(kind).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &authority(world)).unwrap();
    fs::create_dir_all(folder).unwrap();
    replace(&folder.join("key.pem"), &key.serialize_pem());
    replace(&folder.join("cert.pem"), &certificate.pem());
    fs::copy(world.path("authority/ca.pem"), folder.join("ca.pem")).unwrap();
}

/// Writes a file whole, as a careful administrator does.
fn replace(file: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let fresh = file.with_extension("new");
    fs::write(&fresh, text).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(fresh, file).unwrap();
}

fn revocations(world: &World, number: u64, of: &[&Path]) -> String {
    let revoked = |file: &&Path| {
        let certificate = CertificateDer::from_pem_file(file).unwrap();
        let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(parsed.raw_serial()),
            revocation_time: rcgen::date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }
    };
    let params = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2025, 1, 1),
        next_update: rcgen::date_time_ymd(2040, 1, 1),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: of.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&authority(world)).unwrap().pem().unwrap()
}

fn master_of(client: &mut Https, slave: &str) -> String {
    let answer = client.request("GET", &format!("/api/v1/keys/{slave}/status"), None).unwrap();
    answer.json()["master_SAE_ID"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn classic_clients_connect_with_rsa_and_ecdsa_over_tls_1_2_and_1_3() {
    let mut world = World::provision();
    let address = world.listen("east", "kme");
    for server in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let tls_folder = world.path("sites/east/tls");
        let names =
            vec![SanType::IpAddress(address.ip()), SanType::URI("urn:qurrent:kme:east".to_owned().try_into().unwrap())];
        issue(&world, &world.dir.path().join("server"), "east", names, server);
        for (from, to) in [("cert.pem", "kme.pem"), ("key.pem", "kme.key")] {
            fs::rename(world.dir.path().join("server").join(from), tls_folder.join(to)).unwrap();
        }
        world.start_alone("east");
        for (kind, client) in [
            ("rsa", &rcgen::PKCS_RSA_SHA256),
            ("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
            ("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ] {
            let folder = world.dir.path().join(kind);
            // No URI: the common name is the SAE.
            issue(&world, &folder, "app-east", Vec::new(), client);
            let file = |name: &str| str_of(&folder.join(name)).to_owned();
            for versions in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"]] {
                let mut curl = Command::new("curl");
                curl.args(["-sS", "--fail", "--max-time", "20", "--cacert", &file("ca.pem")]).args(versions);
                curl.args(["--cert", &file("cert.pem"), "--key", &file("key.pem")]);
                let said = ok_of(curl.arg(format!("https://{address}/api/v1/keys/vault-east/enc_keys")));
                assert!(said.starts_with(r#"{"keys":[{"key_ID":""#), "{kind} {versions:?}: {said}");
            }
        }
        assert!(world.terminate("east").success());
    }
}

#[test]
fn clients_that_can_get_the_hybrid_key_exchange() {
    let mut world = World::provision();
    world.start_alone("east");
    let address = world.listen("east", "kme");
    let name = ServerName::from(address.ip());
    let mut session = rustls::ClientConnection::new(tls(&world.sae("east", "app-east")), name).unwrap();
    session.complete_io(&mut std::net::TcpStream::connect(address).unwrap()).unwrap();
    let group = session.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
}

#[test]
fn an_sae_is_known_by_its_uri_its_common_name_or_its_fingerprint() {
    let mut world = World::provision();
    let folder = |name: &str| world.dir.path().join(name);
    let uri = |text: &str| vec![SanType::URI(text.to_owned().try_into().unwrap())];
    let kind = &rcgen::PKCS_ECDSA_P256_SHA256;
    issue(&world, &folder("uri"), "somebody", uri("urn:qurrent:sae:app-east"), kind);
    issue(&world, &folder("name"), "app-east", Vec::new(), kind);
    issue(&world, &folder("print"), "serial 4711", uri("https://maker.example/7"), kind);
    issue(&world, &folder("kme"), "app-east", uri("urn:qurrent:kme:west"), kind);
    let certificate = CertificateDer::from_pem_file(folder("print").join("cert.pem")).unwrap();
    let print: Vec<_> = crypto::hash::sha256(&certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    let (uri_folder, name_folder, print_folder, kme_folder) =
        (folder("uri"), folder("name"), folder("print"), folder("kme"));
    let node = world.node("east");
    let text = fs::read_to_string(&node).unwrap();
    fs::write(&node, format!("{text}\n[[saes]]\nid = \"vault-east\"\nfingerprint = \"{}\"\n", print.join(":")))
        .unwrap();
    world.start_alone("east");
    let connect = |folder: &Path| Https::open(world.listen("east", "kme"), tls(folder)).unwrap();
    assert_eq!(master_of(&mut connect(&uri_folder), "vault-east"), "app-east");
    assert_eq!(master_of(&mut connect(&name_folder), "vault-east"), "app-east");
    assert_eq!(master_of(&mut connect(&print_folder), "app-east"), "vault-east");
    // A KME's certificate is no SAE's, whatever its common name.
    let answer = connect(&kme_folder).request("GET", "/api/v1/keys/vault-east/status", None).unwrap();
    assert_eq!((answer.status, answer.reason().as_str()), (401, "not_authorised"));
}

#[test]
fn certificates_and_revocations_are_taken_over_without_a_restart() {
    let mut world = World::provision();
    let node = world.node("east");
    let text = fs::read_to_string(&node).unwrap();
    fs::write(&node, text.replacen("[tls]\n", "[tls]\ncrl = \"tls/revoked.pem\"\n", 1)).unwrap();
    let list = world.path("sites/east/tls/revoked.pem");
    replace(&list, &revocations(&world, 1, &[]));
    world.start_alone("east");
    let status = |client: &mut Https| client.request("GET", "/api/v1/keys/vault-east/status", None);
    let app_folder = world.sae("east", "app-east");
    let address = world.listen("east", "kme");
    let fresh = || Https::open(address, tls(&app_folder)).and_then(|mut client| status(&mut client));
    let mut app = Https::connect(&world, "east", "app-east");
    let mut vault = Https::connect(&world, "east", "vault-east");
    assert_eq!(status(&mut app).unwrap().status, 200);
    assert_eq!(vault.request("GET", "/api/v1/keys/app-east/status", None).unwrap().status, 200);

    // A broken list changes nothing and is named in the log.
    replace(&list, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    wait_until(Duration::from_secs(20), "a warning", || world.log("east").contains("were not reloaded"));
    assert_eq!((status(&mut app).unwrap().status, fresh().unwrap().status), (200, 200));

    // A new certificate of the site is shown to new connections; those that are open go on.
    let names =
        vec![SanType::IpAddress(address.ip()), SanType::URI("urn:qurrent:kme:east".to_owned().try_into().unwrap())];
    replace(&list, &revocations(&world, 2, &[]));
    let folder = world.dir.path().join("server");
    issue(&world, &folder, "east again", names, &rcgen::PKCS_ECDSA_P256_SHA256);
    fs::rename(folder.join("key.pem"), world.path("sites/east/tls/kme.key")).unwrap();
    fs::rename(folder.join("cert.pem"), world.path("sites/east/tls/kme.pem")).unwrap();
    ok_of(Command::new("kill").args(["-HUP", &world.pid("east").to_string()]));
    let shown = || {
        let name = ServerName::from(address.ip());
        let mut session = rustls::ClientConnection::new(tls(&app_folder), name).unwrap();
        session.complete_io(&mut std::net::TcpStream::connect(address).unwrap()).unwrap();
        let certificate = session.peer_certificates().unwrap()[0].clone();
        let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
        parsed.subject().to_string()
    };
    wait_until(Duration::from_secs(20), "the new certificate", || shown() == "CN=east again");
    assert_eq!((status(&mut app).unwrap().status, fresh().unwrap().status), (200, 200));

    // Who is revoked is refused, also on a connection that was open before; others are not.
    replace(&list, &revocations(&world, 3, &[&app_folder.join("cert.pem")]));
    wait_until(Duration::from_secs(20), "the open connection closed", || status(&mut app).is_err());
    assert!(fresh().is_err(), "a new connection of a revoked certificate");
    let said = crate::world::fails(&["key", "--sae", str_of(&app_folder.join("sae.toml")), "status", "vault-east"]);
    assert!(said.contains("certificate") || said.contains("Revoked"), "{said}");
    assert_eq!(vault.request("GET", "/api/v1/keys/app-east/status", None).unwrap().status, 200);
}
