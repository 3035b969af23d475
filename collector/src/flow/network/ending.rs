//! Why a connection ended, or could not be opened: from the states that it went through and the error that it left.
//!
//! Refuses: to name a side where neither the states nor the error do.

use collector_common::flow::CloseRecord;

/// States (include/net/tcp_states.h).
const ESTABLISHED: u32 = 1;
const FIN_WAIT1: u32 = 4;
const CLOSE_WAIT: u32 = 8;

/// Errors (include/uapi/asm-generic/errno.h).
const BROKEN_PIPE: u32 = 32;
const NETWORK_DOWN: u32 = 100;
const NETWORK_UNREACHABLE: u32 = 101;
const CONNECTION_ABORTED: u32 = 103;
const CONNECTION_RESET: u32 = 104;
const TIMED_OUT: u32 = 110;
const CONNECTION_REFUSED: u32 = 111;
const HOST_DOWN: u32 = 112;
const HOST_UNREACHABLE: u32 = 113;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This side closed first.
    LocalClose,
    /// The other side closed first.
    RemoteClose,
    /// This side ended it at once.
    ResetSent,
    /// The other side did.
    ResetReceived,
    /// Nothing was heard of the other side.
    Timeout,
    /// It tells no end (UDP), or its end was lost.
    Idle,
    /// Nothing that says.
    Unknown,
}

/// Why a connection could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens there.
    Refused,
    /// No answer.
    Timeout,
    /// No way there.
    Unreachable,
    /// The program gave up before an answer, or found no local port.
    Abandoned,
    /// Another error.
    Other,
}

/// Kinds of [`Cause`] and [`Failure`].
pub const CAUSES: usize = Cause::ALL.len();
/// See [`CAUSES`].
pub const FAILURES: usize = Failure::ALL.len();

impl Cause {
    /// All, in their order.
    pub const ALL: [Self; 7] = [
        Self::LocalClose,
        Self::RemoteClose,
        Self::ResetSent,
        Self::ResetReceived,
        Self::Timeout,
        Self::Idle,
        Self::Unknown,
    ];

    /// Why this one ended. An error says more than the state: who closed first may have been answered by a reset.
    pub fn of(record: &CloseRecord) -> Self {
        let [left, last] = record.states;
        match record.error {
            CONNECTION_RESET | BROKEN_PIPE => Self::ResetReceived,
            TIMED_OUT | HOST_UNREACHABLE | NETWORK_UNREACHABLE | HOST_DOWN | NETWORK_DOWN => Self::Timeout,
            CONNECTION_ABORTED => Self::ResetSent,
            // From these two a socket goes at once only by a reset of its own.
            0 if last == ESTABLISHED || last == CLOSE_WAIT => Self::ResetSent,
            0 if left == FIN_WAIT1 => Self::LocalClose,
            0 if left == CLOSE_WAIT => Self::RemoteClose,
            _ => Self::Unknown,
        }
    }

    /// The value of `network.flow.close.cause`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LocalClose => "local_close",
            Self::RemoteClose => "remote_close",
            Self::ResetSent => "reset_sent",
            Self::ResetReceived => "reset_received",
            Self::Timeout => "timeout",
            Self::Idle => "idle",
            Self::Unknown => "unknown",
        }
    }
}

impl Failure {
    /// All, in their order.
    pub const ALL: [Self; 5] =
        [Self::Refused, Self::Timeout, Self::Unreachable, Self::Abandoned, Self::Other];

    /// By the error that the socket ended with.
    pub fn of(error: u32) -> Self {
        match error {
            CONNECTION_REFUSED => Self::Refused,
            TIMED_OUT => Self::Timeout,
            HOST_UNREACHABLE | NETWORK_UNREACHABLE | HOST_DOWN | NETWORK_DOWN => Self::Unreachable,
            0 => Self::Abandoned,
            _ => Self::Other,
        }
    }

    /// The value of `error.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Abandoned => "abandoned",
            Self::Other => "_OTHER",
        }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    fn check(left: u32, last: u32, error: u32, expected: Cause) {
        let record = CloseRecord { states: [left, last], error, ..CloseRecord::new_zeroed() };
        assert_eq!(Cause::of(&record), expected, "{left} {last} {error}");
    }

    #[test]
    fn ends_by_states_and_errors() {
        const FIN_WAIT2: u32 = 5;
        const LAST_ACK: u32 = 9;
        check(FIN_WAIT1, FIN_WAIT2, 0, Cause::LocalClose);
        check(CLOSE_WAIT, LAST_ACK, 0, Cause::RemoteClose);
        check(0, ESTABLISHED, 0, Cause::ResetSent);
        check(CLOSE_WAIT, CLOSE_WAIT, 0, Cause::ResetSent);
        check(0, ESTABLISHED, CONNECTION_RESET, Cause::ResetReceived);
        check(CLOSE_WAIT, CLOSE_WAIT, BROKEN_PIPE, Cause::ResetReceived);
        check(FIN_WAIT1, FIN_WAIT1, TIMED_OUT, Cause::Timeout);
        check(0, ESTABLISHED, HOST_UNREACHABLE, Cause::Timeout);
        check(0, 7, 0, Cause::Unknown);
        check(0, ESTABLISHED, 9999, Cause::Unknown);
    }

    #[test]
    fn names_have_their_places() {
        for (place, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, place);
        }
        for (place, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, place);
        }
    }
}
