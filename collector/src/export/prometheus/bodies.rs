//! Encoded bodies, shared by the answers that carry the same one.
//!
//! A body lives as long as an answer that carries it: between scrapes the endpoint holds no memory for them. Refuses:
//! to keep bodies for later scrapes, which want newer numbers.

use std::sync::{Arc, Weak};

use anyhow::Result;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::encode::{Encoder, Format};
use crate::telemetry::Snapshot;

/// The bodies of the newest snapshot.
pub struct Bodies {
    encoder: Encoder,
    snapshot: Weak<Snapshot>,
    entries: Vec<(Format, bool, Weak<Vec<u8>>)>,
    /// The last length of a body, plain and compressed, so that the next one has room from the start.
    lengths: [usize; 2],
}

/// A body, and how many series are not in it; 0 for one that was there already.
pub struct Body {
    /// The content.
    pub bytes: Bytes,
    /// Series that were left out when it was encoded.
    pub omitted: u64,
}

impl Bodies {
    /// Without any.
    pub fn new(encoder: Encoder) -> Self {
        Self { encoder, snapshot: Weak::new(), entries: Vec::new(), lengths: [0; 2] }
    }

    /// `snapshot` in `format`, compressed if `gzip`. Errors: none that can be provoked from outside.
    pub fn body(&mut self, snapshot: &Arc<Snapshot>, format: Format, gzip: bool) -> Result<Body> {
        if !std::ptr::eq(self.snapshot.as_ptr(), Arc::as_ptr(snapshot)) {
            self.snapshot = Arc::downgrade(snapshot);
            self.entries.clear();
        }
        if let Some(known) = self.known(format, gzip) {
            return Ok(Body { bytes: shared(known), omitted: 0 });
        }
        let length = self.lengths[usize::from(gzip)];
        let mut out = Vec::with_capacity(length + length / 16);
        let omitted = if gzip {
            // At its fastest: a scrape is in a hurry, and metrics shrink tenfold at any level.
            let mut out_gzip = GzEncoder::new(&mut out, Compression::fast());
            let omitted = self.encoder.encode(snapshot, format, &mut out_gzip)?;
            out_gzip.finish()?;
            omitted
        } else {
            self.encoder.encode(snapshot, format, &mut out)?
        };
        self.lengths[usize::from(gzip)] = out.len();
        Ok(Body { bytes: shared(self.keep(format, gzip, out)), omitted: omitted.count() })
    }

    fn known(&self, format: Format, gzip: bool) -> Option<Arc<Vec<u8>>> {
        let entry = self.entries.iter().find(|entry| (entry.0, entry.1) == (format, gzip));
        entry.and_then(|entry| entry.2.upgrade())
    }

    fn keep(&mut self, format: Format, gzip: bool, body: Vec<u8>) -> Arc<Vec<u8>> {
        let body = Arc::new(body);
        self.entries.retain(|entry| (entry.0, entry.1) != (format, gzip));
        self.entries.push((format, gzip, Arc::downgrade(&body)));
        body
    }
}

/// What `Bytes` owns.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn shared(body: Arc<Vec<u8>>) -> Bytes {
    Bytes::from_owner(Shared(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn shared_while_in_flight() {
        let target = vec![("a".into(), "b".into())];
        let mut bodies = Bodies::new(Encoder::new(HashSet::new(), target, false));
        let snapshot = Arc::new(Snapshot::default());
        let mut body =
            |snapshot: &Arc<Snapshot>, gzip| bodies.body(snapshot, Format::Text, gzip).unwrap().bytes;
        let one = body(&snapshot, false);
        assert_eq!(one.as_ptr(), body(&snapshot, false).as_ptr());
        let zipped = body(&snapshot, true);
        assert_eq!(zipped.as_ptr(), body(&snapshot, true).as_ptr());
        let newer = Arc::new(Snapshot::default());
        assert_ne!(one.as_ptr(), body(&newer, false).as_ptr());
    }
}
