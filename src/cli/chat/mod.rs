//! `chat`: standard input in, messages out.
//!
//! Three threads, one channel: one reads the input, one the connection, and the main thread decides. With a terminal in
//! front, a lost connection is made again; in a pipe it is a failure.

mod call;
mod link;
mod stream;
mod target;
mod websocket;

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use self::link::{Ending, Heard, Link, LinkError};
use self::target::Target;
use super::trust::TrustArgs;
use super::{Failure, one_line};
use crate::io::tls::Trust;
use crate::session::caller::Outcome as CallOutcome;

const DEFAULT_URL: &str = "ws://127.0.0.1:8080/chat/lobby";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// ws://HOST:PORT/chat/ROOM?name=NAME (http:// is the same), grpc://HOST:PORT/topics/TOPIC?history=N or
    /// tcp://HOST:PORT; over TLS wss://, https://, grpcs:// and tls://; without a name it is $USER's
    #[arg(default_value = DEFAULT_URL)]
    url: String,
    #[command(flatten)]
    trust: TrustArgs,
}

/// What the main thread waits for.
enum Happening {
    /// A line of input, without its end.
    Line(String),
    /// No more input.
    InputEnded,
    /// The input cannot be used: why.
    BadInput(String),
    /// A connection, by its number, is over.
    Ended(u32, Ending),
    /// A line was not taken: why.
    NotTaken(String),
    /// Messages were lost that had been asked for.
    Missed,
    /// Nobody reads what we print.
    OutputClosed,
}

type Happenings = SyncSender<Happening>;

/// How a conversation over one connection came to an end that is no failure.
enum Outcome {
    /// That is all.
    Done,
    /// The connection is gone; the server may have said when to come back.
    ComeBack(Option<Duration>),
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let user = std::env::var("USER").unwrap_or_default();
    let target = Target::parse(&args.url, &user)
        .map_err(|(what, mend)| Failure::usage(format_args!("{what}, {}: {mend}", args.url)))?;
    let (happenings, inbox) = mpsc::sync_channel(64);
    let trust = args.trust.read(target.tls)?;
    let mut chat = Chat { target, trust, happenings, inbox, connections: 0, interactive: io::stdin().is_terminal() };
    let link = chat.connect().map_err(|error| chat.failure(&error))?;
    chat.read_input()?;
    chat.go(link)
}

struct Chat {
    target: Target,
    trust: Trust,
    happenings: Happenings,
    inbox: Receiver<Happening>,
    /// Made so far; the number of the newest.
    connections: u32,
    /// Whether a person sits at the other end of the input.
    interactive: bool,
}

impl Chat {
    const BACKOFF_MIN: Duration = Duration::from_millis(500);
    const BACKOFF_MAX: Duration = Duration::from_secs(30);
    const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
    /// Time for the answers to the last lines of an input that has ended.
    const LAST_WORDS: Duration = Duration::from_millis(250);

    fn connect(&mut self) -> Result<Link, LinkError> {
        self.connections += 1;
        let (number, happenings) = (self.connections, self.happenings.clone());
        let printer = Printer { plain: !io::stdout().is_terminal(), happenings: happenings.clone() };
        let link = Link::open(
            &self.target,
            &self.trust,
            move |heard| match heard {
                Heard::Message(bytes) => printer.print(bytes),
                Heard::NotTaken(why) => printer.tell(Happening::NotTaken(why)),
                Heard::Missed => printer.tell(Happening::Missed),
            },
            move |ending| drop(happenings.send(Happening::Ended(number, ending))),
        )?;
        self.say(format_args!("connected to {}; end with Ctrl-D", self.target));
        Ok(link)
    }

    /// Starts the thread that reads the input. It lives as long as the process.
    fn read_input(&self) -> Result<(), Failure> {
        let happenings = self.happenings.clone();
        let spawned =
            thread::Builder::new().name("input".to_owned()).spawn(move || read_lines(io::stdin().lock(), &happenings));
        let failed = |error| Failure::runtime(format_args!("no thread: {error}, at the start: raise ulimit -u"));
        spawned.map(drop).map_err(failed)
    }

    fn go(&mut self, mut link: Link) -> Result<(), Failure> {
        loop {
            match self.talk(&mut link)? {
                Outcome::Done => return Ok(()),
                Outcome::ComeBack(hint) => match self.reconnect(hint)? {
                    Some(next) => link = next,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Sends lines until the connection or the input ends.
    fn talk(&mut self, link: &mut Link) -> Result<Outcome, Failure> {
        loop {
            match self.inbox.recv() {
                Ok(Happening::Line(line)) => {
                    if let Err(error) = link.send(&line) {
                        return self.over(Ending::Lost(error.to_string()));
                    }
                }
                Ok(Happening::Ended(number, ending)) if number == self.connections => return self.over(ending),
                // An older connection's end, which `send` had noticed before.
                Ok(Happening::Ended(..)) => {}
                Ok(Happening::InputEnded) => return self.hear_out(link),
                Ok(Happening::BadInput(why)) => {
                    return Err(Failure::runtime(format_args!("{why}, standard input: send shorter lines of text")));
                }
                Ok(Happening::NotTaken(why)) => self.not_taken(&why)?,
                Ok(Happening::Missed) => self.missed(),
                Ok(Happening::OutputClosed) | Err(_) => return Ok(Outcome::Done),
            }
        }
    }

    /// A person goes on. In a pipe a line that is lost is a failure.
    fn not_taken(&self, why: &str) -> Result<(), Failure> {
        self.say(format_args!("that line was not sent: {why}"));
        if self.interactive {
            return Ok(());
        }
        Err(Failure::runtime(format_args!("a line was not sent: {why}, {}: see the server's limits", self.target)))
    }

    fn missed(&self) {
        self.say(format_args!("messages are missing here: the server does not keep them any more"));
    }

    /// Waits a moment before the good-bye: whoever leaves the room right behind a line does not see it there.
    fn hear_out(&self, link: &mut Link) -> Result<Outcome, Failure> {
        match self.inbox.recv_timeout(Self::LAST_WORDS) {
            Ok(Happening::Ended(number, ending)) if number == self.connections => self.over(ending),
            Ok(Happening::OutputClosed) => Ok(Outcome::Done),
            Ok(Happening::NotTaken(why)) => self.not_taken(&why).and_then(|()| self.leave(link)),
            _ => self.leave(link),
        }
    }

    /// Says good-bye and waits for the answer; what still arrives is printed.
    fn leave(&self, link: &mut Link) -> Result<Outcome, Failure> {
        if link.close().is_err() {
            return Ok(Outcome::Done);
        }
        let deadline = Instant::now() + Self::CLOSE_TIMEOUT;
        loop {
            match self.inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Happening::Ended(number, ending)) if number == self.connections => {
                    return match ending {
                        // A reason of the server's own, from before it read our good-bye.
                        Ending::Closed(Some(1002..=1015 | 3000..=4999), _) => Err(self.ended(&ending)),
                        Ending::Call(CallOutcome::Status(1.., _)) | Ending::Refused(_) => Err(self.ended(&ending)),
                        _ => Ok(Outcome::Done),
                    };
                }
                Ok(Happening::NotTaken(why)) => self.not_taken(&why)?,
                Ok(Happening::OutputClosed) | Err(_) => return Ok(Outcome::Done),
                Ok(_) => {}
            }
        }
    }

    /// What an end that we did not ask for means.
    fn over(&self, ending: Ending) -> Result<Outcome, Failure> {
        match &ending {
            Ending::Closed(Some(1000), _) | Ending::Call(CallOutcome::Status(0, _)) => Ok(Outcome::Done),
            Ending::Call(CallOutcome::Status(14, reason)) if self.interactive => {
                self.say(format_args!("the server is going away"));
                Ok(Outcome::ComeBack(retry_hint(reason)))
            }
            Ending::Closed(Some(1001 | 1012 | 1013), reason) if self.interactive => {
                self.say(format_args!("the server is going away"));
                Ok(Outcome::ComeBack(retry_hint(reason)))
            }
            Ending::Lost(why) if self.interactive => {
                self.say(format_args!("connection lost: {why}"));
                Ok(Outcome::ComeBack(None))
            }
            _ => Err(self.ended(&ending)),
        }
    }

    /// Tries until there is a connection, or until the input ends.
    fn reconnect(&mut self, hint: Option<Duration>) -> Result<Option<Link>, Failure> {
        let mut backoff = hint.unwrap_or(Self::BACKOFF_MIN).min(Self::BACKOFF_MAX);
        loop {
            let pause = jittered(backoff);
            self.say(format_args!("connecting again in {:.1} s", pause.as_secs_f64()));
            if !self.pause(pause) {
                return Ok(None);
            }
            match self.connect() {
                Ok(link) => return Ok(Some(link)),
                Err(error) if error.may_pass() => self.say(format_args!("{error}")),
                Err(error) => return Err(self.failure(&error)),
            }
            backoff = (backoff * 2).clamp(Self::BACKOFF_MIN, Self::BACKOFF_MAX);
        }
    }

    /// Lets time pass; false when the input or the output ended.
    fn pause(&self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        loop {
            match self.inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Happening::Line(_)) => self.say(format_args!("not connected: that line was not sent")),
                Ok(Happening::Ended(..)) => {}
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }

    /// Tells a person what is going on. Pipes do not want to know.
    fn say(&self, what: std::fmt::Arguments<'_>) {
        if self.interactive {
            let _ = writeln!(io::stderr(), "* {}", one_line(&what.to_string()));
        }
    }

    fn failure(&self, error: &LinkError) -> Failure {
        Failure::runtime(format_args!("{error}, {}: {}", self.target, error.mend()))
    }

    fn ended(&self, ending: &Ending) -> Failure {
        match ending {
            Ending::Lost(why) => {
                Failure::runtime(format_args!("connection lost: {why}, {}: connect again", self.target))
            }
            Ending::Call(outcome) => {
                let mend = if matches!(outcome, CallOutcome::Status(14, _)) {
                    "connect again later"
                } else {
                    "see the server's log"
                };
                let what = format!("the server ended the call: {}", call::told(outcome));
                Failure::runtime(format_args!("{what}, {}: {mend}", self.target))
            }
            Ending::Refused(why) => {
                Failure::runtime(format_args!("the server does not let us hear: {why}, {}: check the URL", self.target))
            }
            Ending::Closed(code, reason) => {
                let code = code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
                let what = format!("the server closed the connection: {code} {reason}");
                let mend = if code == "1001" { "connect again later" } else { "see the server's log" };
                Failure::runtime(format_args!("{}, {}: {mend}", what.trim_end(), self.target))
            }
        }
    }
}

/// Prints messages, one per line.
struct Printer {
    /// Whether the output is no terminal, so that bytes go out as they are.
    plain: bool,
    happenings: Happenings,
}

impl Printer {
    /// Whether there is any use in going on.
    fn print(&self, message: &[u8]) -> bool {
        let mut line = if self.plain { message.to_vec() } else { harmless(message).into_bytes() };
        line.push(b'\n');
        let mut out = io::stdout().lock();
        let printed = out.write_all(&line).and_then(|()| out.flush()).is_ok();
        if !printed {
            let _ = self.happenings.send(Happening::OutputClosed);
        }
        printed
    }
}

impl Printer {
    fn tell(&self, happening: Happening) -> bool {
        self.happenings.send(happening).is_ok()
    }
}

/// What others write must not steer our terminal.
fn harmless(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Hands over lines until the input ends, or has one that is too long.
fn read_lines(mut input: impl BufRead, happenings: &Happenings) {
    const LINE_BYTES_MAX: u64 = 16 << 20;
    loop {
        let mut line = Vec::new();
        let happening = match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => Happening::InputEnded,
            Ok(count) if count as u64 == LINE_BYTES_MAX => Happening::BadInput("a line is over 16 MiB".to_owned()),
            Ok(_) => {
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                Happening::Line(String::from_utf8_lossy(line).into_owned())
            }
            Err(error) => Happening::BadInput(format!("cannot be read: {error}")),
        };
        let last = !matches!(happening, Happening::Line(_));
        if happenings.send(happening).is_err() || last {
            return;
        }
    }
}

/// The time in a close reason such as `retry after 12s` or `retry_ms=1500`, as far as there is one.
fn retry_hint(reason: &str) -> Option<Duration> {
    let start = reason.find(|c: char| c.is_ascii_digit())?;
    let (before, rest) = reason.split_at(start);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number: u64 = rest[..end].parse().ok()?;
    let millis = rest[end..].trim_start().starts_with("ms") || before.contains("ms");
    Some(if millis { Duration::from_millis(number) } else { Duration::from_secs(number) })
}

/// Between a half and one and a half, so that clients that left together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let spread = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8) % 1000;
    pause / 2 + pause * u32::try_from(spread).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_found_in_the_reason() {
        for (reason, hint) in [
            ("retry after 12s", Some(12_000)),
            ("retry after 12", Some(12_000)),
            ("retry in 250ms", Some(250)),
            ("retry after 1234 ms", Some(1234)),
            ("retry_ms=1500", Some(1500)),
            ("going away", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(retry_hint(reason), hint.map(Duration::from_millis), "{reason}");
        }
    }

    #[test]
    fn pauses_spread_around_their_length() {
        let pause = Duration::from_secs(10);
        assert!((0..100).all(|_| (pause / 2..=pause * 3 / 2).contains(&jittered(pause))));
    }

    #[test]
    fn terminals_are_not_steered() {
        assert_eq!(harmless(b"a\x1b[2J\tb\xff\n"), "a\u{fffd}[2J\tb\u{fffd}\u{fffd}");
    }

    #[test]
    fn input_is_cut_into_lines() {
        let (sender, inbox) = mpsc::sync_channel(8);
        read_lines(&b"one\r\n\ntwo"[..], &sender);
        drop(sender);
        let lines: Vec<String> = inbox
            .iter()
            .map(|happening| match happening {
                Happening::Line(line) => line,
                _ => "END".to_owned(),
            })
            .collect();
        assert_eq!(lines, ["one", "", "two", "END"]);
    }
}
