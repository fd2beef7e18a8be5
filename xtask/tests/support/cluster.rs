//! The cluster that tests use.
//!
//! `PLIMSOLL_TEST_CLUSTER` names a program that prints the path of a kubeconfig, and runs `exec COMMAND` where Services can be
//! reached. For what only talks to the API server `KUBECONFIG` will do.

use std::{
    env,
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// The cluster of this machine.
pub(crate) struct Cluster {
    program: Option<OsString>,
    kubeconfig: OsString,
    path: OsString,
}

impl Cluster {
    /// The cluster whose API server can be asked; else it says why not.
    pub(crate) fn find() -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        if let Some(program) = env::var_os("PLIMSOLL_TEST_CLUSTER") {
            let output = Command::new(&program).output().expect("PLIMSOLL_TEST_CLUSTER can be run");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let kubeconfig = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
            // It may bring its tools along.
            let tools = kubeconfig.parent().map(|directory| directory.join("bin"));
            let path = env::join_paths(env::split_paths(&path).chain(tools)).expect("directories");
            Some(Self { program: Some(program), kubeconfig: kubeconfig.into(), path })
        } else if let Some(kubeconfig) = env::var_os("KUBECONFIG") {
            Some(Self { program: None, kubeconfig, path })
        } else {
            println!("skipped: there is no cluster (PLIMSOLL_TEST_CLUSTER, KUBECONFIG)");
            None
        }
    }

    /// The cluster if commands can be run where its Services and pods are reached; else it says why not.
    pub(crate) fn within() -> Option<Self> {
        let cluster = Self::find()?;
        if cluster.program.is_none() {
            println!("skipped: clients can only be run where Services are reached (PLIMSOLL_TEST_CLUSTER)");
        }
        Some(cluster).filter(|cluster| cluster.program.is_some())
    }

    /// The beginning of a command that runs where Services and pods are reached.
    pub(crate) fn exec(&self) -> Command {
        let mut command = Command::new(self.program.as_ref().expect("it was found by `within`"));
        command.arg("exec");
        command
    }

    /// What `kubectl` prints; it must succeed.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        self.kubectl_with(args, "")
    }

    /// The same with something to read.
    pub(crate) fn kubectl_with(&self, args: &[&str], input: &str) -> String {
        let output = self.try_kubectl(args, input);
        assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same, however it ends.
    pub(crate) fn try_kubectl(&self, args: &[&str], input: &str) -> Output {
        self.tool(Path::new("kubectl"), args, input).expect("kubectl is there where a cluster is")
    }

    /// Runs a program that may be among the cluster's tools; `None` where it is not installed.
    pub(crate) fn tool(&self, program: &Path, args: &[&str], input: &str) -> Option<Output> {
        let mut command = Command::new(program);
        command.env("PATH", &self.path).env("KUBECONFIG", &self.kubeconfig).args(args);
        fed(command, input)
    }

    /// What commands must be told to find the cluster and its tools.
    pub(crate) fn variables(&self) -> Vec<(String, OsString)> {
        vec![("KUBECONFIG".to_owned(), self.kubeconfig.clone()), ("PATH".to_owned(), self.path.clone())]
    }
}

/// Runs a command that reads `input`; `None` if there is no such program.
pub(crate) fn fed(mut command: Command, input: &str) -> Option<Output> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match piped.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{command:?}: {error}"),
    };
    let mut stdin = child.stdin.take().expect("it is piped");
    // It is written while the other streams are read, or both sides could wait for each other.
    let output = std::thread::scope(|scope| {
        // Who has seen enough may end before it has read all: how it ended says whether that was right.
        scope.spawn(move || _ = stdin.write_all(input.as_bytes()));
        child.wait_with_output()
    });
    Some(output.expect("the program can be waited for"))
}

/// Looks at the cluster until it is as it must be; in vain, what was seen last is told.
pub(crate) fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(seen) => assert!(Instant::now() < deadline, "in vain: {what}; last seen: {seen}"),
        }
        // Each look is a few programs.
        std::thread::sleep(Duration::from_millis(200));
    }
}
