//! Clients that do little, so that what is measured is the other side: one thread, kept connections, one request on each at a time.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is sent next.
#[derive(Clone)]
pub struct Ask {
    pub bytes: Rc<Vec<u8>>,
}

/// What came back.
pub struct Heard<'a> {
    pub status: u16,
    pub head: &'a str,
    pub body: &'a [u8],
    /// From when it was sent (or, with a pace, should have been) to the last byte of the answer.
    pub took: Duration,
}

impl Heard<'_> {
    /// Refuses another status.
    pub fn expect(&self, status: u16) -> Result<()> {
        if self.status != status {
            bail!("{} instead of {status}: {}", self.status, String::from_utf8_lossy(self.body));
        }
        Ok(())
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.head, name)
    }
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.split("\r\n").skip(1);
    lines.filter_map(|line| line.split_once(':')).find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Some clients, each with a connection of its own.
pub struct Clients {
    address: SocketAddr,
    all: Vec<Client>,
}

struct Client {
    stream: TcpStream,
    ask: Option<Ask>,
    written: usize,
    read: Vec<u8>,
    sent: Instant,
    /// With a pace: when it sends next.
    due: Instant,
}

impl Clients {
    pub fn connect(address: SocketAddr, number: usize) -> Result<Self> {
        let all = (0..number).map(|_| Client::connect(address)).collect::<Result<_>>()?;
        Ok(Self { address, all })
    }

    /// Asks until the time is up and every answer has come. `pace` is the time between two requests of one client, whether or not answers
    /// are late; without it each sends as soon as it has its answer. `next` says what the n-th client asks, `heard` is told the answers.
    pub fn drive(
        &mut self,
        time: Duration,
        pace: Option<Duration>,
        mut next: impl FnMut(usize) -> Result<Ask>,
        mut heard: impl FnMut(usize, Heard<'_>) -> Result<()>,
    ) -> Result<()> {
        let start = Instant::now();
        let number = u32::try_from(self.all.len().max(1))?;
        for (index, client) in self.all.iter_mut().enumerate() {
            // Spread over one interval.
            client.due = start + pace.map_or(Duration::ZERO, |pace| pace * u32::try_from(index).unwrap_or(0) / number);
        }
        loop {
            let now = Instant::now();
            let over = now >= start + time;
            let mut wait = Duration::from_millis(100);
            for (index, client) in self.all.iter_mut().enumerate() {
                if client.ask.is_none() && !over {
                    if client.due <= now {
                        let sent = if pace.is_some() { client.due } else { now };
                        client.send(next(index)?, sent)?;
                        client.due += pace.unwrap_or_default();
                    } else {
                        wait = wait.min(client.due - now);
                    }
                }
            }
            if over && self.all.iter().all(|client| client.ask.is_none()) {
                return Ok(());
            }
            let busy: Vec<usize> = (0..self.all.len()).filter(|index| self.all[*index].ask.is_some()).collect();
            let ready: Vec<bool> = {
                let mut polled: Vec<PollFd<'_>> = busy.iter().map(|index| self.all[*index].polled()).collect();
                let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::try_from(wait.as_nanos())? };
                match poll(&mut polled, Some(&timeout)) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                polled.iter().map(|fd| !fd.revents().is_empty()).collect()
            };
            for (index, _) in busy.into_iter().zip(ready).filter(|(_, ready)| *ready) {
                let client = &mut self.all[index];
                client.write()?;
                let again = client.receive(|answer| heard(index, answer)).with_context(|| format!("asking {}", self.address))?;
                if again {
                    *client = Client { due: client.due, ..Client::connect(self.address)? };
                }
            }
            if self.all.iter().any(|client| client.ask.is_some() && client.sent + PATIENCE < now) {
                bail!("no answer from {} within {} s", self.address, PATIENCE.as_secs());
            }
        }
    }
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let now = Instant::now();
        Ok(Self { stream, ask: None, written: 0, read: Vec::with_capacity(16 * 1024), sent: now, due: now })
    }

    fn polled(&self) -> PollFd<'_> {
        let all_sent = self.ask.as_ref().is_none_or(|ask| self.written == ask.bytes.len());
        PollFd::new(&self.stream, if all_sent { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT })
    }

    fn send(&mut self, ask: Ask, sent: Instant) -> Result<()> {
        self.ask = Some(ask);
        self.written = 0;
        self.sent = sent;
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        let Some(ask) = &self.ask else { return Ok(()) };
        while self.written < ask.bytes.len() {
            match self.stream.write(&ask.bytes[self.written..]) {
                Ok(0) => bail!("the connection takes no more"),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes in what has come; when the answer is whole, tells it. Answers whether the connection ends with it.
    fn receive(&mut self, heard: impl FnOnce(Heard<'_>) -> Result<()>) -> Result<bool> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the connection was closed in the middle of an answer"),
                Ok(length) => {
                    self.read.extend_from_slice(&buffer[..length]);
                    if length < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.ask.is_none() {
            bail!("an answer to nothing");
        }
        let Some((head_end, body_end)) = whole(&self.read)? else { return Ok(false) };
        let head = std::str::from_utf8(&self.read[..head_end]).context("the head of the answer is no text")?;
        let body = &self.read[head_end..body_end];
        let status: u16 = head.get(9..12).and_then(|status| status.parse().ok()).context("this is no answer")?;
        let closing = header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        heard(Heard { status, head, body, took: self.sent.elapsed() })?;
        self.read.clear();
        self.ask = None;
        Ok(closing)
    }
}

/// Where the head and the body of an answer end, once all of it is there. An answer that does not state its length is refused: on Spin
/// it leaves in two packets, and a kept connection waits for the second.
fn whole(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head]).context("the head of the answer is no text")?;
    let length = match header(text, "content-length") {
        Some(length) => length.parse().context("a length that is no number")?,
        None if [Some("204"), Some("304")].contains(&text.get(9..12)) => 0,
        None => bail!("the answer does not state its length: {text}"),
    };
    let (head, body): (usize, usize) = (head + 4, length);
    Ok((bytes.len() >= head + body).then_some((head, head + body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_has_come() -> Result<()> {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(whole(answer)?, Some((38, 43)));
        assert_eq!(whole(&answer[..42])?, None);
        assert_eq!(whole(&answer[..20])?, None);
        assert_eq!(whole(b"HTTP/1.1 204 No Content\r\n\r\n")?, Some((27, 27)));
        Ok(())
    }

    #[test]
    fn an_answer_without_its_length_is_refused() {
        assert!(whole(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn clients_ask_until_the_time_is_up() -> Result<()> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                std::thread::spawn(move || {
                    let mut buffer = [0; 1024];
                    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 2\r\n\r\nhi");
                    }
                });
            }
        });
        let mut clients = Clients::connect(address, 3)?;
        let ask = Ask { bytes: Rc::new(b"GET / HTTP/1.1\r\n\r\n".to_vec()) };
        let (mut answers, mut of_client) = (0, [0; 3]);
        let heard = |client: usize, heard: Heard<'_>| {
            assert_eq!((heard.status, heard.header("X-A"), heard.body), (200, Some("b"), b"hi".as_slice()));
            answers += 1;
            of_client[client] += 1;
            Ok(())
        };
        clients.drive(Duration::from_millis(200), Some(Duration::from_millis(20)), |_| Ok(ask.clone()), heard)?;
        assert!((15..=33).contains(&answers) && of_client.iter().all(|answers| *answers > 0), "{answers} {of_client:?}");
        assert!(clients.drive(Duration::from_millis(50), None, |_| Ok(ask.clone()), |_, heard| heard.expect(201)).is_err());
        Ok(())
    }
}
