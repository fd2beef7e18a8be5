//! Releases when the disk with the state is full: the cause is said, production serves what it served, and once there is room
//! again a release goes through.

use crate::{
    faults::production_serves_on,
    place::Place,
    world::{census, eventually, processes_of, version_at},
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::{
    env,
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A disk of its own, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Puts an empty disk with room for a few kept executables there; `None`, with a line that says why, where that is not allowed.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        match mount("tmpfs", path, "tmpfs", MountFlags::empty(), c"size=1g,mode=0700") {
            Ok(()) => Some(Self(path.to_owned())),
            Err(e) => {
                // Root of a container may not mount, and nobody can give it that from within.
                let must = env::var_os("CI").is_some() && e != rustix::io::Errno::PERM;
                assert!(!must, "a disk can be mounted here: {e}");
                println!("skipped: no disk to fill can be mounted here ({e})");
                None
            }
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Fills the disk, but for so many bytes.
    fn fill(&self, but: u64) -> u64 {
        let mut filler = File::create(self.filler()).unwrap();
        let chunk = vec![0; 64 * 1024];
        let full = loop {
            match filler.write(&chunk) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::StorageFull => break filler.metadata().unwrap().len(),
                Err(e) => panic!("{e}"),
            }
        };
        filler.set_len(full - but).unwrap();
        full - but
    }

    /// Fills the disk to the last byte: also what is left of the pages that the logs of the long-lived processes end in.
    fn fill_with_logs(&self) {
        let paths = fs::read_dir(self.0.join("logs")).unwrap().map(|entry| entry.unwrap().path());
        for path in paths.filter(|path| path.is_file()) {
            let mut log = File::options().append(true).open(path).unwrap();
            let over = usize::try_from(log.metadata().unwrap().len()).unwrap() % rustix::param::page_size();
            log.write_all(&vec![b'\n'; rustix::param::page_size() - over]).unwrap();
        }
        self.fill(0);
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What still has a file open there keeps the rest of it, and nothing else does.
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_is_named_and_production_serves_on_until_there_is_room_again() {
    let Some(place) = Place::on_a_disk() else { return };
    place.release().expect(0);
    // Both slots are there, as they are in every later release.
    place.at("second");
    place.release().expect(0);
    let (before, processes) = (place.status(), census(place.state()));
    let disk = place.disk().unwrap();
    place.greet("web", "three");
    place.commit("a third greeting");
    // No room at all, or only for the first records, the first blobs, all but the unpacked image.
    for room in [0, 4 << 10, 256 << 10, 1 << 20] {
        let filled = disk.fill(room);
        let began = Instant::now();
        let ran = place.release().expect(3);
        println!("{filled} bytes taken, room for {room}: {} ms\n{}", began.elapsed().as_millis(), ran.text());
        // The command met the full disk itself, and says where; or the registry did, which tells its clients no paths.
        let text = ran.text();
        let named = text.contains("No space left on device") && text.contains(place.state().to_str().unwrap());
        assert!(named || text.contains("the registry's disk is full"), "{text}");
        assert!(!ran.text().contains("panicked"), "{}", ran.text());
        // The registry has read a manifest to its end before it says that the disk is full, so that answer arrives.
        let cut = ran.text().lines().any(|line| line.contains("/manifests/") && line.contains("broke off"));
        assert!(!cut, "{}", ran.text());
        production_serves_on(&place, &before, &processes);
        disk.empty();
    }
    for log in fs::read_dir(place.state().join("logs")).unwrap() {
        let text = fs::read_to_string(log.unwrap().path()).unwrap_or_default();
        assert!(!text.contains("panicked"), "{text}");
    }

    place.release().expect(0);
    let after = place.status();
    for environment in ["staging", "production"] {
        let (then, now) = (before.live(environment), after.live(environment));
        assert_ne!(then.version, now.version);
        now.answers();
    }
    assert_eq!(version_at(after.live("production").url("web")).unwrap()["greeting"], "three");
}

#[test]
fn a_replica_that_ends_while_the_disk_is_full_is_started_again() {
    let Some(place) = Place::on_a_disk() else { return };
    place.release().expect(0);
    let status = place.status();
    let disk = place.disk().unwrap();
    disk.fill_with_logs();
    let replicas = |name: &str| -> Vec<u32> {
        let all = processes_of(place.state()).into_iter();
        all.filter(|(_, line)| line.trim().ends_with(&format!("/{name}"))).map(|(pid, _)| pid).collect()
    };
    let killed = replicas("web");
    assert_eq!(killed.len(), 2, "{:?}", processes_of(place.state()));
    for pid in &killed {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    let began = Instant::now();
    eventually("other replicas", Duration::from_secs(20), || {
        let now = replicas("web");
        now.len() == 2 && now.iter().all(|pid| !killed.contains(pid))
    });
    for environment in ["staging", "production"] {
        let url = status.live(environment).url("web");
        eventually(environment, Duration::from_secs(20), || version_at(url).is_ok());
    }
    println!("started again within {} ms, with no room on the disk", began.elapsed().as_millis());
    disk.empty();
    place.at("second");
    place.release().expect(0);
    place.status().live("production").answers();
}
