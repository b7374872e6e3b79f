//! The programs that run together: their output in one stream, their end in one place.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::command::end_with_this_program;

/// How long a program may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to look whether all programs still run.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How a run ended that nobody broke.
#[derive(Debug, PartialEq)]
pub enum Ending {
    /// Somebody asked for it, with this signal.
    Signal(i32),
}

impl Ending {
    /// What a shell expects of a program that a signal ended.
    pub fn exit_code(&self) -> ExitCode {
        let Self::Signal(signal) = self;
        ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
    }
}

enum Event {
    Line { from: usize, text: String },
    Signal(i32),
}

/// Running programs. All of them end when this is dropped.
pub struct Children {
    children: Vec<(&'static str, Child)>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    show: bool,
    looked: Instant,
}

impl Children {
    /// Begins to listen to signals; from here on they end what runs, and not this program at once.
    pub fn new(show: bool) -> Result<Self> {
        let (sender, events) = mpsc::channel();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let to_events = sender.clone();
        thread::spawn(move || {
            for signal in signals.forever() {
                if to_events.send(Event::Signal(signal)).is_err() {
                    // Nothing runs that could be ended first.
                    std::process::exit(128 + signal);
                }
            }
        });
        Ok(Self { children: Vec::new(), events, sender, show, looked: Instant::now() })
    }

    /// Starts a program and waits until it says that it is ready, in a line that holds `ready`.
    pub fn start(&mut self, name: &'static str, command: &mut Command, ready: &str, limit: Duration) -> Result<Option<Ending>> {
        self.start_with(name, command, ready, limit, Stdio::piped())
    }

    /// The same, with its stderr elsewhere: it says on stdout that it is ready.
    pub fn start_with(
        &mut self,
        name: &'static str,
        command: &mut Command,
        ready: &str,
        limit: Duration,
        stderr: Stdio,
    ) -> Result<Option<Ending>> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        // In a process group of its own it doesn't hear the terminal's Ctrl-C. It hears of it once, from here, and
        // in the right order.
        std::os::unix::process::CommandExt::process_group(command, 0);
        end_with_this_program(command);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let from = self.children.len();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
            child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        ];
        for stream in streams.into_iter().flatten() {
            let sender = self.sender.clone();
            thread::spawn(move || forward(stream, from, &sender));
        }
        self.children.push((name, child));

        let deadline = Instant::now() + limit;
        loop {
            match self.next(deadline)? {
                Some(Event::Line { from: whose, text }) if whose == from && text.contains(ready) => {
                    return Ok(None);
                }
                Some(Event::Line { .. }) => {}
                Some(Event::Signal(signal)) => return Ok(Some(Ending::Signal(signal))),
                None => bail!("{name} was not ready after {} s (it has not said `{ready}`)", limit.as_secs()),
            }
        }
    }

    /// The system's number of the program that was started last under this name.
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.children.iter().rev().find(|(started, _)| *started == name).map(|(_, child)| child.id())
    }

    /// Shows what the programs say until a signal comes; it is an error if one of them ends.
    pub fn wait(&mut self) -> Result<Ending> {
        loop {
            let far = Instant::now() + Duration::from_secs(3600);
            if let Some(Event::Signal(signal)) = self.next(far)? {
                return Ok(Ending::Signal(signal));
            }
        }
    }

    /// Shows what the programs have said meanwhile; tells if a signal came, and fails if one of them ended.
    pub fn glance(&mut self) -> Result<Option<Ending>> {
        self.refuse_ended()?;
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Line { from, text } => self.show_line(from, &text),
                Event::Signal(signal) => return Ok(Some(Ending::Signal(signal))),
            }
        }
        Ok(None)
    }

    /// The next event before the deadline. Lines are shown on the way; a program that has ended is an error.
    fn next(&mut self, deadline: Instant) -> Result<Option<Event>> {
        loop {
            // A talkative program must not hide that another one is gone.
            if self.looked.elapsed() > LOOK_EVERY {
                self.looked = Instant::now();
                self.refuse_ended()?;
            }
            match self.events.recv_timeout(LOOK_EVERY) {
                Ok(event) => {
                    if let Event::Line { from, text } = &event {
                        self.show_line(*from, text);
                    }
                    return Ok(Some(event));
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
        }
    }

    fn refuse_ended(&mut self) -> Result<()> {
        for (name, child) in &mut self.children {
            if let Some(status) = child.try_wait()? {
                let name = *name;
                self.show_last_words();
                bail!("{name} ended by itself ({status}); its last lines say why");
            }
        }
        Ok(())
    }

    fn show_line(&self, from: usize, text: &str) {
        if self.show
            && let Some((name, _)) = self.children.get(from)
        {
            println!("{name:<7} | {text}");
        }
    }

    fn show_last_words(&self) {
        while let Ok(event) = self.events.recv_timeout(Duration::from_millis(200)) {
            if let Event::Line { from, text } = event
                && let Some((name, _)) = self.children.get(from)
            {
                // Shown even in a quiet run: this is the reason for its end.
                println!("{name:<7} | {text}");
            }
        }
    }

    /// Ends all programs, those started last first: they use the ones before.
    pub fn stop(&mut self) {
        while let Some((name, mut child)) = self.children.pop() {
            if matches!(child.try_wait(), Ok(Some(_))) {
                continue;
            }
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
            let deadline = Instant::now() + PATIENCE;
            while asked && Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                // Its output is taken in all the while, or it would wait for a reader instead of ending.
                if let Ok(Event::Line { from, text }) = self.events.recv_timeout(Duration::from_millis(20))
                    && self.show
                {
                    let whose = if from == self.children.len() { name } else { self.children.get(from).map_or("", |c| c.0) };
                    println!("{whose:<7} | {text}");
                }
            }
            if matches!(child.try_wait(), Ok(None)) {
                eprintln!("{name} did not end within {} s and is killed", PATIENCE.as_secs());
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.stop();
    }
}

fn forward(stream: impl Read, from: usize, to: &Sender<Event>) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if to.send(Event::Line { from, text }).is_err() {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_is_ready_when_it_says_so() -> Result<()> {
        let mut children = Children::new(false)?;
        let ending = children.start("one", &mut shell("echo starting; echo it is ready >&2; sleep 60"), "is ready", SOON)?;
        assert_eq!(ending, None);
        Ok(())
    }

    #[test]
    fn a_program_that_ends_is_named() -> Result<()> {
        let mut children = Children::new(false)?;
        children.start("one", &mut shell("echo ready; sleep 60"), "ready", SOON)?;
        children.start("two", &mut shell("echo ready; sleep 0.2; exit 3"), "ready", SOON)?;
        let refusal = children.wait().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refusal.starts_with("two ended by itself (exit status: 3)"), "{refusal}");
        Ok(())
    }

    #[test]
    fn a_program_that_never_gets_ready_is_not_waited_for_forever() -> Result<()> {
        let mut children = Children::new(false)?;
        let limit = Duration::from_millis(300);
        let outcome = children.start("one", &mut shell("sleep 60"), "ready", limit);
        assert!(outcome.is_err_and(|error| error.to_string().starts_with("one was not ready")));
        Ok(())
    }

    #[test]
    fn all_end_with_the_run() -> Result<()> {
        let mut children = Children::new(false)?;
        children.start("one", &mut shell("echo ready; exec sleep 60"), "ready", SOON)?;
        let pid = children.children.first().and_then(|(_, child)| Pid::from_raw(child.id() as i32));
        drop(children);
        let pid = pid.context("it had no id")?;
        assert!(rustix::process::test_kill_process(pid).is_err());
        Ok(())
    }
}
