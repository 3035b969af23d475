//! A service on tokio, whose requests change their threads. Usage: relay_tokio PORT POSTGRES_PORT REDIS_PORT. Asks PostgreSQL for as
//! many columns and Redis with as many keys as the number in the path says, then answers; every tenth number is not found.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

/// Connections to each store.
const CONNECTIONS: usize = 8;

/// Parameters of a start of PostgreSQL: the version, then names and values.
const START: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";

/// What PostgreSQL's answers end with: ready, outside of a transaction.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// Connections that wait for a request.
struct Store {
    free: mpsc::Sender<TcpStream>,
    waiting: Mutex<mpsc::Receiver<TcpStream>>,
    /// What an answer ends with.
    end: &'static [u8],
}

impl Store {
    /// Connects; this is said first, if it is not empty.
    async fn connect(port: u16, start: &[u8], end: &'static [u8]) -> io::Result<Self> {
        let (free, waiting) = mpsc::channel(CONNECTIONS);
        let store = Self { free, waiting: Mutex::new(waiting), end };
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            if !start.is_empty() {
                store.ask_by(&mut stream, start).await?;
            }
            store.free.send(stream).await.map_err(io::Error::other)?;
        }
        Ok(store)
    }

    async fn ask(&self, request: &[u8]) -> io::Result<()> {
        let stream = self.waiting.lock().await.recv().await;
        let mut stream = stream.ok_or(io::ErrorKind::BrokenPipe)?;
        self.ask_by(&mut stream, request).await?;
        self.free.send(stream).await.map_err(io::Error::other)
    }

    async fn ask_by(&self, stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(self.end) {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

/// `select id, id from shelf where id = 1`, as PostgreSQL is told it.
fn query(number: usize) -> Vec<u8> {
    let columns = vec!["id"; 1 + number % 15].join(", ");
    let statement = format!("select {columns} from shelf where id = {number}\0");
    let length = 4 + statement.len() as u32;
    [b"Q", &length.to_be_bytes()[..], statement.as_bytes()].concat()
}

/// `DEL k k`, as Redis is told it.
fn delete(number: usize) -> Vec<u8> {
    let keys = 1 + number % 15;
    format!("*{}\r\n$3\r\nDEL\r\n{}", keys + 1, "$1\r\nk\r\n".repeat(keys)).into_bytes()
}

async fn relay<B>(request: Request<B>, stores: Arc<[Store; 2]>) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = request.uri().path().rsplit('/').next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let [postgres, redis] = &*stores;
    let asked = async {
        postgres.ask(&query(number)).await?;
        redis.ask(&delete(number)).await
    };
    let mut response = Response::new(Full::new(Bytes::from_static(b"done")));
    *response.status_mut() = match asked.await {
        Ok(()) if number % 10 == 9 => StatusCode::NOT_FOUND,
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::BAD_GATEWAY,
    };
    Ok(response)
}

#[tokio::main(worker_threads = 2)]
async fn main() -> io::Result<()> {
    let ports: Vec<u16> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [port, postgres_port, redis_port] = ports[..] else { return Err(io::ErrorKind::InvalidInput.into()) };
    let postgres = Store::connect(postgres_port, START, READY).await?;
    let redis = Store::connect(redis_port, b"", b"\r\n").await?;
    let stores = Arc::new([postgres, redis]);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let stores = Arc::clone(&stores);
        tokio::spawn(async move {
            let service = service_fn(move |request| relay(request, Arc::clone(&stores)));
            // A client that hangs up is its own affair.
            let _closed = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
