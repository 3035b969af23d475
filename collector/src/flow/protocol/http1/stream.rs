//! One direction of a connection: where in a message it is.
//!
//! Refuses: to pair messages.

use super::body::Body;
use super::detect;
use super::head::{EndFinder, Length, RequestHead};
use crate::flow::protocol::{Direction, Extent, Mark};

/// Bytes of a head that show whether it is one.
const DOUBT_BYTES: usize = 64;

/// One direction.
#[derive(Debug, Default)]
pub struct Stream {
    /// Where it is.
    pub place: Place,
    /// The head so far, while it is not whole.
    pub carried: Vec<u8>,
    /// Finds the end of that head.
    pub end: EndFinder,
    /// The message so far, while its head is read.
    pub extent: Extent,
    /// Whether the other side spoke since the last message began.
    pub has_turned: bool,
    /// Whether it did before this message.
    pub is_at_turn: bool,
    /// Whether bytes were lost before what comes next, so that it may be a rest and no head.
    pub is_behind_hole: bool,
}

/// Where in a stream.
#[derive(Debug, Default)]
pub enum Place {
    /// Nowhere known, until the other side has spoken.
    #[default]
    Lost,
    /// Before a message.
    Start,
    /// In a head.
    Head,
    /// In the rest of a head that was too large to keep; then comes a body, if there is one.
    HeadRest(Option<Body>),
    /// In a body.
    Body(Body),
}

/// How a head came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its end was seen.
    Seen,
    /// It is too large to keep; its end comes later.
    Later,
    /// Its end was not captured.
    Cut,
}

impl Stream {
    /// A message begins.
    pub fn begin(&mut self, mark: Mark) {
        self.place = Place::Head;
        self.end = EndFinder::default();
        self.extent = Extent { first: mark, last: mark, bytes: 0 };
        self.is_at_turn = std::mem::take(&mut self.has_turned);
    }

    /// Goes on behind the head.
    pub fn enter(&mut self, body: Option<Body>, ending: Ending) {
        self.place = match (body, ending) {
            (body, Ending::Later) => Place::HeadRest(body),
            (Some(body), _) => Place::Body(body),
            (None, _) => Place::Start,
        };
    }

    /// Whether it is in a message whose end will be seen.
    pub fn is_inside(&self) -> bool {
        match &self.place {
            Place::Lost | Place::Start => false,
            Place::Head | Place::HeadRest(_) => true,
            Place::Body(body) => !body.is_lost(),
        }
    }

    /// Whether a head is awaited whose begin does not look like one. Few bytes show that, however many there are.
    pub fn is_head_doubtful(&self, direction: Direction) -> bool {
        let begin = self.carried.get(..DOUBT_BYTES).unwrap_or(&self.carried);
        matches!(self.place, Place::Head) && detect(begin) != Some(direction)
    }

    /// Whether it is in a message whose end can't be told.
    pub fn is_body_lost(&self) -> bool {
        matches!(&self.place, Place::Body(body) if body.is_lost())
    }
}

/// More bytes of a message.
pub fn extend(extent: &mut Extent, bytes: u64, mark: Mark) {
    if bytes > 0 {
        extent.bytes = extent.bytes.saturating_add(bytes);
        extent.last = mark;
    }
}

/// The body behind the head of a request.
pub fn request_body(head: &RequestHead<'_>, ending: Ending, is_partial: bool) -> Option<Body> {
    match head.length {
        _ if ending == Ending::Cut => Some(Body::lost()),
        Length::Chunked => Some(Body::chunked()),
        Length::Bytes(0) => None,
        Length::Bytes(bytes) => Some(Body::counted(bytes)),
        // The header may be among those that were not kept.
        Length::Unsaid => is_partial.then(Body::lost),
        Length::Coded | Length::Invalid => Some(Body::lost()),
    }
}

/// The body behind the head of a response.
pub fn response_body(length: Length, ending: Ending, is_partial: bool, has_body: bool) -> Option<Body> {
    match length {
        _ if ending == Ending::Cut => Some(Body::lost()),
        _ if !has_body => None,
        Length::Chunked => Some(Body::chunked()),
        Length::Bytes(0) => None,
        Length::Bytes(bytes) => Some(Body::counted(bytes)),
        Length::Unsaid if !is_partial => Some(Body::endless()),
        Length::Coded => Some(Body::endless()),
        Length::Unsaid | Length::Invalid => Some(Body::lost()),
    }
}
