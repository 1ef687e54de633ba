//! The demo's processes: started, watched, restarted when they die, stopped together.
//!
//! Each child holds the read end of a pipe from this process as its standard input and stops when that ends,
//! so that no child outlives a killed demo.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::failure::{Context as _, Failure, Outcome};

/// Starts and keeps processes of this same program.
pub struct Processes {
    program: PathBuf,
    logs: PathBuf,
    children: BTreeMap<String, mpsc::Sender<()>>,
    watchers: Vec<tokio::task::JoinHandle<bool>>,
    restarts: Arc<Mutex<Vec<String>>>,
}

impl Processes {
    /// None yet; their output goes to files in `logs`.
    ///
    /// # Errors
    /// If the folder cannot be made or this program cannot be found.
    pub fn new(logs: &Path) -> Outcome<Self> {
        fs::create_dir_all(logs).context(|| format!("cannot make folder {}", logs.display()))?;
        let program = std::env::current_exe().context(|| "cannot find this program's file".to_owned())?;
        Ok(Self {
            program,
            logs: logs.to_path_buf(),
            children: BTreeMap::new(),
            watchers: Vec::new(),
            restarts: Arc::default(),
        })
    }

    /// This program's file.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts a process and keeps it running.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn keep(&mut self, name: &str, args: &[String]) -> Outcome<()> {
        let log = self.logs.join(format!("{name}.log"));
        let first = spawn(&self.program, args, &log)?;
        let (stop, asked) = mpsc::channel(1);
        self.children.insert(name.to_owned(), stop);
        let watcher = Watcher {
            name: name.to_owned(),
            program: self.program.clone(),
            args: args.to_vec(),
            log,
            restarts: self.restarts.clone(),
        };
        self.watchers.push(tokio::spawn(watcher.run(first, asked)));
        Ok(())
    }

    /// Names of processes that died and were started again, in order.
    #[must_use]
    pub fn restarted(&self) -> Vec<String> {
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks every process to stop and waits. Says whether all stopped cleanly.
    pub async fn stop(self) -> bool {
        for stop in self.children.values() {
            let _already_asked = stop.try_send(());
        }
        let mut clean = true;
        for watcher in self.watchers {
            clean &= watcher.await.unwrap_or(false);
        }
        clean
    }

    /// Runs a command of this program to its end and gives its standard output.
    ///
    /// # Errors
    /// If it fails; its standard error is in the failure.
    pub async fn run(&self, args: &[String]) -> Outcome<String> {
        self.runner(args).await
    }

    /// As [`Processes::run`], for a task of its own.
    pub fn runner(&self, args: &[String]) -> impl Future<Output = Outcome<String>> + Send + 'static {
        let mut command = Command::new(&self.program);
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        let what = format!("qurrent {}", args.join(" "));
        async move {
            let output = command.output().await.context(|| what.clone())?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            let said = String::from_utf8_lossy(&output.stderr);
            Err(Failure::new(format!("{what} failed: {}", said.trim())))
        }
    }
}

/// Keeps a folder to one run at a time. The lock goes with the process, however it ends.
///
/// # Errors
/// If another process holds it.
pub fn lock(dir: &Path, file: &str) -> Outcome<File> {
    let path = dir.join(file);
    let file = File::create(&path).context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(format!("another one runs in {} already", dir.display()))
            .remedy("stop that one, or choose another folder with --dir")),
        Err(TryLockError::Error(error)) => Err(error).context(|| format!("cannot lock {}", path.display())),
    }
}

struct Watcher {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    restarts: Arc<Mutex<Vec<String>>>,
}

impl Watcher {
    /// Until asked to stop; says whether the last process stopped cleanly.
    async fn run(self, first: Child, mut asked: mpsc::Receiver<()>) -> bool {
        let mut child = first;
        // Waiting for a child closes its standard input, which would stop it; so the pipe is held here.
        let mut pipe = child.stdin.take();
        let mut started = Instant::now();
        loop {
            tokio::select! {
                _ = asked.recv() => {
                    let clean = stop_child(&self.name, child).await;
                    drop(pipe);
                    return clean;
                }
                status = child.wait() => {
                    tracing::warn!(name = %self.name, ?status, log = %self.log.display(), "process died; starting it again");
                }
            }
            if started.elapsed() < QUICK_DEATH {
                tokio::select! {
                    _ = asked.recv() => return true,
                    () = sleep(QUICK_DEATH) => {}
                }
            }
            self.restarts.lock().unwrap_or_else(PoisonError::into_inner).push(self.name.clone());
            started = Instant::now();
            match spawn(&self.program, &self.args, &self.log) {
                Ok(next) => {
                    child = next;
                    pipe = child.stdin.take();
                }
                Err(error) => {
                    tracing::error!(name = %self.name, %error, "cannot start again");
                    return false;
                }
            }
        }
    }
}

fn spawn(program: &Path, args: &[String], log: &Path) -> Outcome<Child> {
    let what = || format!("cannot start {} {}", program.display(), args.join(" "));
    let out = File::options().create(true).append(true).open(log).context(|| format!("log {}", log.display()))?;
    let err = out.try_clone().context(what)?;
    Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context(what)
}

async fn stop_child(name: &str, mut child: Child) -> bool {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _already_gone = kill_process(pid, Signal::TERM);
    }
    match timeout(STOP_MAX, child.wait()).await {
        Ok(Ok(status)) => status.success(),
        Ok(Err(_)) => false,
        Err(_) => {
            tracing::warn!(name, "did not stop in time; killed");
            drop(child.kill().await);
            false
        }
    }
}

const QUICK_DEATH: Duration = Duration::from_secs(2);
const STOP_MAX: Duration = Duration::from_secs(15);
