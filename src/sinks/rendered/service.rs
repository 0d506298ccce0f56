//! The sink at work: carries out what the machine wants, one thing at a time, and shows what came of it.
//!
//! Files are read and written by the helper, commands run as children, nginx is asked over HTTP; a timer bounds each.
//! Every decision is the machine's.

use super::hangup::{hang_up, number};
use super::machine::{Came, Machine, Part, Todo};
use super::run::{Asked, COMMAND_TIME, Inquiry, Run};
use super::{Config, Reload};
use crate::clock::Mono;
use crate::process;
use crate::reactor::bank::plain;
use crate::reactor::{Care, Cx, Done, Job, Key, PATIENCE, Reading, Ready, Service, Stamp};
use crate::sinks::follow::{Follow, log_news};
use crate::url::Url;
use crate::wheel::TimerId;
use std::any::Any;
use std::io;
use std::time::Duration;

/// A file that follows a balancer.
pub struct Rendered {
    config: Config,
    machine: Machine,
    table: Follow<Url>,
    task: Task,
    /// What a reload has made of the section; it waits for the end of what is under way.
    next: Option<Config>,
    timer: Option<TimerId>,
    /// The file as it was last read.
    stamp: Option<Stamp>,
    /// What the last command that failed said.
    complaint: Vec<String>,
    draining: bool,
}

/// What is under way.
enum Task {
    /// Nothing; the timer says when to look again.
    Rest,
    /// The helper reads or writes this.
    Disk(Part),
    /// The helper reads the file with nginx's process number.
    PidFile,
    /// The helper reads what the process of that number is.
    Process(i32),
    /// A command runs.
    Run(Box<Run>),
    /// The generation is asked for.
    Ask(Box<Inquiry>),
}

impl Rendered {
    /// A sink that has not started.
    #[must_use]
    pub fn new(config: Config) -> Rendered {
        Rendered {
            machine: Machine::new(config.layout.clone(), config.ways(), config.pace),
            config,
            table: Follow::default(),
            task: Task::Rest,
            next: None,
            timer: None,
            stamp: None,
            complaint: Vec::new(),
            draining: false,
        }
    }

    /// Does what the machine says, until there is something to wait for.
    fn proceed(&mut self, cx: &mut Cx<'_>) {
        while matches!(self.task, Task::Rest) && (!self.draining || self.machine.is_busy()) {
            let layout = &self.config.layout;
            let place = |url: &Url| layout.place(url);
            let changed = self.table.refresh(&self.config.name(), &self.config.balancer, place, cx);
            let todo = self.machine.next(self.table.want(), cx.now.mono);
            self.tell();
            if self.machine.views_moved() || changed {
                self.table.show(|server| self.machine.view(server), cx);
            }
            match todo {
                Todo::Wait(at) => match self.next.take() {
                    Some(config) => self.adopt(config, cx),
                    None => return cx.rearm(&mut self.timer, TIMER, at),
                },
                todo => self.begin(todo, cx),
            }
        }
    }

    /// Becomes what a reload has made of the section.
    fn adopt(&mut self, config: Config, cx: &mut Cx<'_>) {
        self.table.withdraw(cx);
        let old = std::mem::replace(self, Rendered::new(config));
        let config = &self.config;
        self.machine = old.machine.reconfigured(config.layout.clone(), config.ways(), config.pace);
        (self.timer, self.draining) = (old.timer, old.draining);
    }

    fn begin(&mut self, todo: Todo, cx: &mut Cx<'_>) {
        match todo {
            Todo::Read(part) => {
                let known = self.stamp.filter(|_| part == Part::File);
                let job = Job::ReadFile { path: self.path(part), most: LONGEST, known };
                self.offload(Task::Disk(part), job, cx);
            }
            Todo::Write(part, bytes) => {
                let care = if part == Part::Good { Care::SERVED } else { self.config.care };
                let job = Job::WriteFile { path: self.path(part), bytes, care };
                self.offload(Task::Disk(part), job, cx);
            }
            Todo::Test => self.run(self.config.test.clone(), cx),
            Todo::Reload => match self.config.reload.clone() {
                Some(Reload::Hangup(path)) => {
                    self.offload(Task::PidFile, Job::ReadFile { path, most: LONGEST_PID, known: None }, cx);
                }
                Some(Reload::Command(command)) => self.run(Some(command), cx),
                None => self.end(Came::Done, cx),
            },
            Todo::Verify(generation) => match &self.config.verify {
                Some(url) => {
                    let mut inquiry = Inquiry::new(url, generation, HTTP, cx.now.mono);
                    let asked = inquiry.ask(cx);
                    self.task = Task::Ask(Box::new(inquiry));
                    self.asked(asked, cx);
                }
                None => self.end(Came::Done, cx),
            },
            Todo::Wait(_) => {}
        }
    }

    fn offload(&mut self, task: Task, job: Job, cx: &mut Cx<'_>) {
        match cx.offload(JOB, job) {
            Ok(()) => {
                self.task = task;
                cx.rearm(&mut self.timer, TIMER, cx.now.mono.after(DISK_TIME));
            }
            Err(_) => self.end(Came::Failed("too much waits for the disk".to_owned()), cx),
        }
    }

    fn run(&mut self, command: Option<Vec<String>>, cx: &mut Cx<'_>) {
        let Some(command) = command else { return self.end(Came::Done, cx) };
        let file = self.config.file.to_string_lossy().into_owned();
        let env = [("BEACOND_FILE", file.as_str()), ("BEACOND_BALANCER", self.config.balancer.as_str())];
        log::debug!(target: self.config.role, "{}: runs {}", self.config.name(), command.join(" "));
        match Run::spawn(&command, &env, PIPES, cx) {
            Ok(run) => {
                self.task = Task::Run(Box::new(run));
                cx.rearm(&mut self.timer, TIMER, cx.now.mono.after(COMMAND_TIME));
            }
            Err(why) => self.end(Came::Failed(why), cx),
        }
    }

    /// What the disk says.
    fn disk(&mut self, part: Part, result: Done) -> Came {
        let failed = |e: &io::Error| Came::Failed(plain(e));
        match result {
            Done::Written(Ok(())) => {
                log::debug!(target: self.config.role, "{}: wrote {}", self.config.name(), self.path(part).display());
                Came::Done
            }
            Done::Read(Ok(Reading::Same)) => Came::Same,
            Done::Read(Ok(Reading::Absent)) => {
                self.remember(part, None);
                Came::Bytes(None)
            }
            Done::Read(Ok(Reading::Bytes(bytes, stamp))) => {
                self.remember(part, Some(stamp));
                Came::Bytes(Some(bytes))
            }
            Done::Written(Err(e)) | Done::Read(Err(e)) => failed(&e),
            Done::Resolved(_) | Done::Reloaded(_) | Done::Gathered(..) => {
                Came::Failed("another answer than asked for".to_owned())
            }
        }
    }

    fn remember(&mut self, part: Part, stamp: Option<Stamp>) {
        if part == Part::File {
            self.stamp = stamp;
        }
    }

    /// Goes on with asking for the generation.
    fn asked(&mut self, asked: Asked, cx: &mut Cx<'_>) {
        match asked {
            Asked::Pending => {}
            Asked::Again(at) => cx.rearm(&mut self.timer, TIMER, at),
            Asked::Right => self.end(Came::Done, cx),
            Asked::Wrong(why) => self.end(Came::Failed(why), cx),
        }
    }

    /// What was under way has ended.
    fn end(&mut self, came: Came, cx: &mut Cx<'_>) {
        self.rest(cx);
        let random = cx.random();
        self.machine.came(came, cx.now.mono, random);
    }

    fn rest(&mut self, cx: &mut Cx<'_>) {
        match std::mem::replace(&mut self.task, Task::Rest) {
            Task::Run(mut run) => run.unwatch(cx),
            Task::Ask(mut inquiry) => inquiry.close(cx),
            Task::Rest | Task::Disk(_) | Task::PidFile | Task::Process(_) => {}
        }
        cx.rearm(&mut self.timer, TIMER, Mono::NEVER);
    }

    fn path(&self, part: Part) -> std::path::PathBuf {
        match part {
            Part::Good => self.config.good(),
            Part::Generation => self.config.generation.clone().unwrap_or_default(),
            Part::File => self.config.file.clone(),
        }
    }

    fn pid_file(&self) -> String {
        match &self.config.reload {
            Some(Reload::Hangup(file)) => file.display().to_string(),
            _ => String::new(),
        }
    }

    /// Prints the machine's news.
    fn tell(&mut self) {
        log_news(self.config.role, &self.config.name(), self.machine.news());
    }

    /// What a command wrote to its standard error: news if it failed, unless it says the same again and again.
    fn quote(&mut self, failed: bool, lines: Vec<String>) {
        let level = if failed && lines != self.complaint { log::Level::Warn } else { log::Level::Debug };
        for line in &lines {
            log::log!(target: self.config.role, level, "{}: {line}", self.config.name());
        }
        if failed {
            self.complaint = lines;
        }
    }
}

impl Service for Rendered {
    fn name(&self) -> String {
        self.config.name()
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        self.proceed(cx);
        Ok(())
    }

    fn ready(&mut self, key: Key, _ready: Ready, cx: &mut Cx<'_>) {
        match &mut self.task {
            Task::Run(run) => run.ready(key, cx),
            Task::Ask(inquiry) if key == HTTP => {
                let asked = inquiry.ready(cx);
                self.asked(asked, cx);
            }
            _ => {}
        }
        self.proceed(cx);
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        if key == TIMER {
            self.timer = None;
        }
        match &mut self.task {
            Task::Ask(inquiry) => {
                let asked = if key == HTTP { inquiry.timer(cx) } else { inquiry.ask(cx) };
                self.asked(asked, cx);
            }
            Task::Run(run) => run.kill(),
            Task::Disk(_) | Task::PidFile | Task::Process(_) => {
                self.machine.late("the disk does not answer");
                self.tell();
                self.table.show(|server| self.machine.view(server), cx);
            }
            Task::Rest => {}
        }
        self.proceed(cx);
    }

    fn done(&mut self, key: Key, result: Done, cx: &mut Cx<'_>) {
        match &mut self.task {
            Task::Disk(part) if key == JOB => {
                let part = *part;
                let came = self.disk(part, result);
                self.end(came, cx);
            }
            Task::PidFile if key == JOB => match number(result, &self.pid_file()) {
                Ok(pid) => {
                    let path = format!("/proc/{pid}/cmdline").into();
                    let job = Job::ReadFile { path, most: LONGEST_TITLE, known: None };
                    self.offload(Task::Process(pid), job, cx);
                }
                Err(why) => self.end(Came::Failed(why), cx),
            },
            Task::Process(pid) if key == JOB => {
                let came = match hang_up(*pid, result, &self.pid_file()) {
                    Ok(()) => Came::Done,
                    Err(why) => Came::Failed(why),
                };
                self.end(came, cx);
            }
            Task::Ask(inquiry) if key == HTTP => {
                let asked = inquiry.done(result, cx);
                self.asked(asked, cx);
            }
            _ => {}
        }
        self.proceed(cx);
    }

    fn members_changed(&mut self, cx: &mut Cx<'_>) {
        if self.table.is_behind(&self.config.balancer, cx) {
            self.machine.members_changed(cx.now.mono);
            self.proceed(cx);
        }
    }

    fn child_exited(&mut self, cx: &mut Cx<'_>) {
        let Task::Run(run) = &mut self.task else { return };
        let Some((result, lines)) = run.exited(cx) else { return };
        self.quote(result.is_err(), lines);
        let came = match result {
            Ok(()) => Came::Done,
            Err(why) => Came::Failed(why),
        };
        self.end(came, cx);
        self.proceed(cx);
    }

    /// Keeps itself, and so what is under way: a file that was written and not tested must not stay behind.
    fn reload(&mut self, new: Box<dyn Service>, cx: &mut Cx<'_>) -> Option<Box<dyn Service>> {
        if new.name() != self.name() {
            return Some(new);
        }
        let Ok(new) = (new as Box<dyn Any>).downcast::<Rendered>() else { return None };
        self.next = Some(new.config);
        if matches!(self.task, Task::Run(_)) {
            log::info!(target: self.config.role, "{}: what is new waits for the command that runs", self.config.name());
        }
        self.proceed(cx);
        None
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        if matches!(self.task, Task::Run(_)) {
            log::warn!(target: self.config.role, "{}: the command is killed: the program ends", self.config.name());
        }
        self.rest(cx);
        self.table.withdraw(cx);
    }

    /// Finishes what it has begun, as in [`Service::reload`].
    fn drain(&mut self, _cx: &mut Cx<'_>) -> bool {
        self.draining = true;
        !self.machine.is_busy()
    }

    /// A test that hangs is killed at its deadline, and then the old file is still to be put back.
    fn patience(&self) -> Duration {
        let runs = self.config.test.is_some() || matches!(self.config.reload, Some(Reload::Command(_)));
        if runs && self.machine.is_busy() { COMMAND_TIME + PATIENCE } else { PATIENCE }
    }
}

const TIMER: Key = Key(0);
const JOB: Key = Key(1);
const PIPES: process::Keys = process::Keys { input: Key(2), errors: Key(3) };
const HTTP: Key = Key(4);

/// The most that is read: some 100,000 members.
const LONGEST: usize = 16 << 20;
const LONGEST_PID: usize = 64;
const LONGEST_TITLE: usize = 256 << 10;
const DISK_TIME: Duration = Duration::from_secs(10);
