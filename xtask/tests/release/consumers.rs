//! Images of both platforms, as programs read them that are not ours: crane, buildah, umoci, and containerd by `ctr`. skopeo and a
//! Docker Engine have tests of their own (`platforms`).

use crate::{
    place::{Place, Ran},
    plain::registry_port,
    platforms::pushed_for_both,
    world::{eventually, get},
};
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Architectures, with the machine that the executables' headers name (ELF, `e_machine`).
const ARCHITECTURES: [(&str, u16); 2] = [("amd64", 62), ("arm64", 183)];

fn on_path(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap()).any(|directory| directory.join(program).is_file())
}

/// Whether a program is here; CI installs all of them, crane with the help of Go.
fn here(program: &str) -> bool {
    let found = on_path(program);
    if !found {
        let provided = on_path("apt-get") && (program != "crane" || on_path("go"));
        assert!(env::var_os("CI").is_none() || !provided, "{program} is not installed");
        println!("skipped: {program} is not installed");
    }
    found
}

fn run(program: &str, args: &[&str]) -> String {
    Ran::of(Command::new(program).args(args).output().unwrap()).expect(0).out
}

/// The machine that an executable is for.
fn machine(executable: &Path) -> u16 {
    let bytes = fs::read(executable).unwrap();
    u16::from_le_bytes([bytes[18], bytes[19]])
}

/// `web` in the registry of a place, by tag.
fn web(place: &Place) -> String {
    let host = format!("127.0.0.1:{}", registry_port(place));
    let tags: Value = serde_json::from_str(&get(&format!("http://{host}"), "/v2/shop/web/tags/list").unwrap()).unwrap();
    format!("{host}/shop/web:{}", tags["tags"][0].as_str().unwrap())
}

#[test]
fn both_platforms_are_read_by_crane_buildah_umoci_and_containerd() {
    let Some(place) = pushed_for_both() else { return };
    let image = web(&place);
    if here("crane") {
        crane(&image);
    }
    if here("buildah") {
        buildah(&image, &place.beside("buildah"));
    }
    if here("umoci") {
        umoci(&image, &place.beside("umoci"));
    }
    if here("containerd") && here("ctr") {
        containerd(&image, &place.beside("containerd"));
    }
}

fn crane(image: &str) {
    // Reads every layer of both and compares all digests and sizes.
    run("crane", &["validate", "--insecure", "--remote", image]);
    for (architecture, _) in ARCHITECTURES {
        let config = run("crane", &["config", "--insecure", "--platform", &format!("linux/{architecture}"), image]);
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["architecture"], architecture);
    }
}

fn buildah(image: &str, root: &Path) {
    for (architecture, machine_of) in ARCHITECTURES {
        let directory = |name: &str| root.join(architecture).join(name).display().to_string();
        let (storage, running) = (directory("storage"), directory("run"));
        let own = ["--root", &storage, "--runroot", &running, "--storage-driver", "vfs"];
        let buildah = |args: &[&str]| run("buildah", &[&own, args].concat());
        buildah(&["pull", "--quiet", "--tls-verify=false", "--arch", architecture, image]);
        let container = buildah(&["from", "--pull-never", image]);
        let mounted = PathBuf::from(buildah(&["mount", container.trim()]).trim());
        assert_eq!(machine(&mounted.join("bin/web")), machine_of);
        buildah(&["rm", container.trim()]);
    }
}

fn umoci(image: &str, root: &Path) {
    for (architecture, machine_of) in ARCHITECTURES {
        let layout = root.join(architecture);
        let to = format!("oci:{}:web", layout.display());
        let from = format!("docker://{image}");
        run("skopeo", &["copy", "--quiet", "--src-tls-verify=false", "--override-arch", architecture, &from, &to]);
        let (stored, bundle) = (format!("{}:web", layout.display()), root.join(format!("{architecture}-bundle")));
        run("umoci", &["unpack", "--rootless", "--image", &stored, bundle.to_str().unwrap()]);
        assert_eq!(machine(&bundle.join("rootfs/bin/web")), machine_of);
    }
}

/// A containerd of its own, ended with this value.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn containerd(image: &str, root: &Path) {
    if !run("id", &["-u"]).trim().eq("0") {
        println!("skipped: containerd wants to be started by root");
        return;
    }
    // A socket's path may have a hundred bytes.
    let sockets = tempfile::tempdir_in("/tmp").unwrap();
    let socket = sockets.path().join("c.sock").display().to_string();
    let config = format!(
        "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{socket}\"\n",
        root.display()
    );
    let file = root.join("config.toml");
    fs::write(&file, config).unwrap();
    let log = fs::File::create(root.join("log")).unwrap();
    let mut daemon = Command::new("containerd");
    daemon.arg("--config").arg(&file).stdout(Stdio::null()).stderr(log);
    let _daemon = Daemon(daemon.spawn().unwrap());
    let asked = || Command::new("ctr").args(["--address", &socket, "version"]).output().unwrap().status.success();
    eventually("containerd answers", Duration::from_secs(20), asked);
    let ctr = |args: &[&str]| run("ctr", &[&["--address", &socket], args].concat());
    for (architecture, machine_of) in ARCHITECTURES {
        let platform = format!("linux/{architecture}");
        ctr(&["images", "pull", "--plain-http", "--snapshotter", "native", "--platform", &platform, image]);
        let mounted = root.join(architecture);
        fs::create_dir(&mounted).unwrap();
        let directory = mounted.to_str().unwrap();
        ctr(&["images", "mount", "--snapshotter", "native", "--platform", &platform, image, directory]);
        let found = machine(&mounted.join("bin/web"));
        ctr(&["images", "unmount", "--snapshotter", "native", directory]);
        assert_eq!(found, machine_of);
    }
}
