//! The embedded registry for others: users, tokens, a certificate, read-only; with our client and with skopeo.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "another client is started, or the test says that it is not there"
)]

mod common;

use common::{Lab, QUICK, header};
use plimsoll_core::{ImageRef, Platform, Secret};
use plimsoll_http::{Client, ClientOptions};
use plimsoll_oci::{
    BlobStore, ClientError, Credentials, HostOptions, RegistryClient, RegistryOptions,
    registry::{self, Access, Certificate, Options},
};
use std::{
    collections::BTreeMap,
    env, fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
};

/// A registry with the user `ci`, and the file with its certificate if it has one.
struct Served {
    address: SocketAddr,
    certificate: Option<PathBuf>,
}

fn serve(lab: &Lab, name: &str, tls: bool, options: Options) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut options = options;
    let mut certificate = None;
    if tls {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let [chain, key] = ["chain", "key"].map(|part| lab.dir.path().join(format!("{name}-{part}.pem")));
        fs::write(&chain, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        options.tls = Some(Certificate::read(&chain, &key).unwrap());
        certificate = Some(chain);
    }
    let root = lab.dir.path().join(name);
    tokio::spawn(async move { registry::serve(listener, root, options, std::future::pending()).await.unwrap() });
    Served { address, certificate }
}

/// The cheapest hash that bcrypt knows, of `secret`.
fn users(anonymous_pull: bool) -> Access {
    let hash = bcrypt::hash("secret", 4).unwrap();
    Access::from_htpasswd(&format!("ci:{hash}\n"), anonymous_pull).unwrap()
}

impl Served {
    fn image(&self, repository: &str) -> ImageRef {
        format!("{}/{repository}:v1", self.address).parse().unwrap()
    }

    fn client(&self, password: Option<&str>) -> RegistryClient {
        let options = ClientOptions { no_proxy: true, follow_redirects: false, ..ClientOptions::default() };
        let own = self
            .certificate
            .as_ref()
            .map(|path| Client::new(&ClientOptions { roots: fs::read(path).unwrap(), ..options.clone() }).unwrap());
        let credentials =
            password.map(|password| Credentials { username: "ci".to_owned(), password: Secret::new(password) });
        let host = HostOptions { http: own, plain_http: false, credentials, mirrors: Vec::new() };
        let hosts = BTreeMap::from([(self.address.to_string(), host)]);
        let options_of_client = RegistryOptions { policy: QUICK, hosts, ..RegistryOptions::default() };
        RegistryClient::new(Client::new(&options).unwrap(), options_of_client)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_push_and_mount_under_tls_and_others_read_at_most() {
    let lab = Lab::start();
    let index = lab.index(1, 40_000);
    for (name, tls) in [("plain", false), ("tls", true)] {
        for anonymous_pull in [false, true] {
            let name = format!("{name}-{anonymous_pull}");
            let served = serve(&lab, &name, tls, Options { access: Some(users(anonymous_pull)), ..Options::default() });
            let client = served.client(Some("secret"));
            let to = async |repository: &str| {
                let image = served.image(repository);
                client.push_index(&lab.store, &index.digest, &image, &|_| ()).await
            };
            assert_eq!(to("one").await.unwrap().blobs_sent, 5);
            assert_eq!(to("two").await.unwrap().blobs_mounted, 5, "{name}");
            for password in [Some("wrong"), None] {
                let other = served.client(password);
                let pushed = other.push_index(&lab.store, &index.digest, &served.image("three"), &|_| ()).await;
                assert!(matches!(pushed, Err(ClientError::Denied { .. })), "{name} {password:?}: {pushed:?}");
            }
            let here = BlobStore::open(lab.dir.path().join(format!("pulled-{name}"))).unwrap();
            let pulled = served.client(None).pull(&served.image("two"), Platform::LinuxAmd64, &here).await;
            assert_eq!(pulled.is_ok(), anonymous_pull, "{name}: {pulled:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_is_not_trusted() {
    let lab = Lab::start();
    let served = serve(&lab, "untrusted", true, Options { access: Some(users(true)), ..Options::default() });
    let other = serve(&lab, "other", true, Options { access: Some(users(true)), ..Options::default() });
    let wrong = Served { address: served.address, certificate: other.certificate };
    let error = wrong.client(Some("secret")).resolve(&served.image("one")).await.unwrap_err();
    assert!(matches!(error, ClientError::Http(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_logs_in_and_pushes_under_tls() {
    if !Command::new("skopeo").arg("--version").output().is_ok_and(|output| output.status.success()) {
        assert!(env::var_os("CI").is_none(), "in CI skopeo is installed");
        println!("skipped: skopeo cannot be started");
        return;
    }
    let lab = Lab::start();
    let index = lab.index(5, 10_000);
    lab.client().push_index(&lab.store, &index.digest, &lab.image("a", "v1"), &|_| ()).await.unwrap();
    let served = serve(&lab, "skopeo", true, Options { access: Some(users(false)), ..Options::default() });
    let from = format!("docker://{}", lab.image("a", "v1"));
    let to = format!("docker://{}", served.image("b"));
    let directory = lab.dir.path().join("certificates");
    fs::create_dir_all(&directory).unwrap();
    fs::copy(served.certificate.as_ref().unwrap(), directory.join("ca.crt")).unwrap();
    let copy = move |credentials: &'static str| {
        let directory = directory.display().to_string();
        let args = ["copy", "--quiet", "--all", "--src-tls-verify=false", "--dest-cert-dir", &directory];
        let mut command = Command::new("skopeo");
        command.args(args).args(["--dest-creds", credentials, &from, &to]);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let refused = copy("ci:wrong").await.unwrap();
    assert!(!refused.status.success());
    let copied = copy("ci:secret").await.unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let found = served.client(Some("secret")).resolve(&served.image("b")).await.unwrap();
    assert_eq!(found.digest, index.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_registry_takes_nothing_and_gives_all() {
    let lab = Lab::start();
    let index = lab.index(7, 1000);
    lab.client().push_index(&lab.store, &index.digest, &lab.image("a", "v1"), &|_| ()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (root, options) = (lab.root(), Options { read_only: true, ..Options::default() });
    tokio::spawn(async move { registry::serve(listener, root, options, std::future::pending()).await.unwrap() });
    let lab = Lab { address, ..lab };
    assert_eq!(lab.client().resolve(&lab.image("a", "v1")).await.unwrap().digest, index.digest);
    for (method, path) in [
        ("POST", "a/blobs/uploads/"),
        ("PUT", "a/manifests/v2"),
        ("DELETE", "a/manifests/v1"),
        ("PATCH", "a/blobs/uploads/0123456789abcdef0123456789abcdef"),
    ] {
        assert_eq!(lab.ask(method, path, &[], "").await.status(), 405, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_here_from_a_browser_is_refused() {
    let lab = Lab::start();
    let port = lab.address.port();
    for (host, status) in [
        (format!("127.0.0.1:{port}"), 200),
        (format!("localhost:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        (format!("evil.example:{port}"), 403),
        ("evil.example".to_owned(), 403),
    ] {
        assert_eq!(lab.ask("GET", "", &[("host", &host)], "").await.status(), status, "{host}");
    }
    // Who has to log in may come by any name, and is sent back to it.
    let options =
        Options { access: Some(users(false)), url: Some("https://r.example/".to_owned()), ..Options::default() };
    let served = serve(&lab, "named", false, options);
    let lab = Lab { address: served.address, ..lab };
    let asked = lab.ask("GET", "", &[("host", "r.example")], "").await;
    assert_eq!(asked.status(), 401);
    assert!(header(&asked, "www-authenticate").contains("realm=\"https://r.example/token\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_stored_is_served_and_not_collected() {
    let lab = Lab::start();
    let (image, index) = (lab.image("a", "v1"), lab.index(9, 5000));
    lab.client().push_index(&lab.store, &index.digest, &image, &|_| ()).await.unwrap();
    // No links, as a process of that version leaves them that still serves.
    fs::remove_dir_all(lab.root().join("repositories/a/_blobs")).unwrap();
    let garbage = registry::Garbage { grace: std::time::Duration::ZERO, untagged: true, dry_run: false };
    registry::collect(&lab.root(), &garbage).unwrap();
    let here = BlobStore::open(lab.dir.path().join("pulled")).unwrap();
    lab.client().pull(&image, Platform::LinuxArm64, &here).await.unwrap();
    // Once more from the beginning, as after an upgrade: then the links are there.
    fs::remove_file(lab.root().join("format")).unwrap();
    assert_eq!(registry::list(&lab.root()).unwrap()[0].tags.len(), 1);
    assert_eq!(fs::read_dir(lab.root().join("repositories/a/_blobs")).unwrap().count(), 5);
}
