//! A small HTTP/1.1 client: one kept connection, one request at a time. It does little, so that what is measured
//! with it is the other side.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Connection {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    pub fn headers<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.headers.iter().filter(move |(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What to send, put into bytes once: `headers` are whole lines without their ends.
pub fn request(method: &str, path: &str, headers: &[String], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    for header in headers {
        bytes.push_str(header);
        bytes.push_str("\r\n");
    }
    if !body.is_empty() || method == "POST" {
        bytes.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    bytes.push_str("\r\n");
    let mut bytes = bytes.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { address, stream: BufReader::new(stream) })
    }

    pub fn send(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.get_mut().write_all(request)?;
        let answer = self.receive().with_context(|| format!("no whole answer from {}", self.address))?;
        if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            *self = Self::open(self.address)?;
        }
        Ok(answer)
    }

    fn receive(&mut self) -> Result<Answer> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.with_context(|| format!("this is no answer: {status_line:?}"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        if answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.line()?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(size, 16).with_context(|| format!("no size of a chunk: {line:?}"))?;
                self.take_into(&mut answer.body, size)?;
                // The end of the chunk, or of the trailers that nobody sends here.
                self.line()?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse()?;
            self.take_into(&mut answer.body, length)?;
        }
        Ok(answer)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        Ok(line.trim_end().to_owned())
    }

    fn take_into(&mut self, body: &mut Vec<u8>, length: usize) -> Result<()> {
        let start = body.len();
        body.resize(start + length, 0);
        Ok(self.stream.read_exact(&mut body[start..])?)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn answers(said: &'static [u8]) -> Result<Connection> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            if let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(said);
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        Connection::open(address)
    }

    #[test]
    fn answers_follow_each_other_on_one_connection() -> Result<()> {
        let mut connection = answers(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\nhi\
              HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n3\r\nnot\r\n5\r\n here\r\n0\r\n\r\n\
              HTTP/1.1 204 No Content\r\n\r\n",
        )?;
        let request = request("GET", "/", &[], b"");
        let first = connection.send(&request)?;
        assert_eq!((first.status, first.text().as_str()), (200, "hi"));
        assert_eq!(first.headers("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
        let second = connection.send(&request)?;
        assert_eq!((second.status, second.text().as_str()), (404, "not here"));
        let third = connection.send(&request)?;
        assert_eq!((third.status, third.body.len()), (204, 0));
        Ok(())
    }

    #[test]
    fn a_body_has_its_length_before_it() {
        let bytes = request("POST", "/a", &["x-a: 1".to_owned()], b"abc");
        let expected = "POST /a HTTP/1.1\r\nhost: localhost\r\nx-a: 1\r\ncontent-length: 3\r\n\r\nabc";
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }
}
