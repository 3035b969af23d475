//! The connections that are followed: their numbers, counts, owners and ends.
//!
//! TCP connections are known from their first state or message until they close (`streams`). UDP sockets, which do not tell
//! that they close, have places that are taken over; so have Unix sockets (`unix`). Refuses: where TCP connections stand.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use collector_common::event::{Kind, Task};
use collector_common::flow::{CloseRecord, ConnectionState as Connection, OpenRecord, Role, Transport, Way};
use collector_common::limits::{
    CAPTURE_UNDECIDED_BYTES, CAPTURE_UNDECIDED_MESSAGES, COMM_BYTES, DATAGRAM_SOCKETS_MAX, DECISIONS_MAX,
    SILENCE_S, place_of, place_of_address,
};
use collector_common::loss::{KernelCounter, Signal};

use super::{OWN_TGID, ends, streams, tcp, unix};
use crate::io::{place, socket};
use crate::{emit, task};

/// CPUs that the kernel may have.
#[unsafe(no_mangle)]
static CPUS: Global<u32> = Global::new(1);

/// `IPPROTO_TCP`, `IPPROTO_UDP`
const TCP: u16 = 6;
const UDP: u16 = 17;

/// States (include/net/tcp_states.h).
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;
const LISTEN: i32 = 10;

/// No message yet.
const NO_WAY: u8 = u8::MAX;

/// A message as far as the connection knows it.
pub struct Message {
    /// Number of the connection.
    pub connection: u64,
    /// Bytes that went the same way before.
    pub position: u64,
    /// Bytes moved.
    pub length: u32,
    /// Bytes that the daemon wants.
    pub wanted_bytes: u32,
    /// Number of the message in the connection.
    pub number: u32,
    /// Turns of direction.
    pub turns: u32,
    /// Which message of its call it is, for calls that move several.
    pub number_in_call: u32,
    /// Whether exchanges before it were left out.
    pub is_after_skip: bool,
    /// Whether it is a datagram.
    pub is_datagram: bool,
}

#[map]
static DATAGRAM_SOCKETS: Array<Connection> = Array::with_max_entries(DATAGRAM_SOCKETS_MAX, 0);

/// What the daemon wants of connections: see [`collector_common::flow::pack_decision`].
#[map]
static DECISIONS: Array<u64> = Array::with_max_entries(DECISIONS_MAX, 0);

/// How many of 2^32 exchanges are left out: the daemon's answer to more of them than the budget has.
#[map]
static SKIP_SHARE: Array<u32> = Array::with_max_entries(1, 0);

/// Connections that this CPU has numbered.
#[map]
static NUMBERED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The connection of a socket; `None` for other sockets, and where there is no room.
#[inline(always)]
pub fn of(sock: *const c_void, follows_unix: bool) -> Option<*mut Connection> {
    let key = sock as u64;
    if let Some(connection) = streams::get(key) {
        return Some(connection);
    }
    let family = ends::family(sock);
    if follows_unix && family == socket::UNIX {
        return unix::of(sock);
    }
    let (protocol, port) = ends::identity(sock, family)?;
    match protocol {
        // What is read after the end, as after a reset, must not stand in the way of the next connection of this memory.
        TCP if task::read::<u8>(sock, socket::SOCK_STATE.load()) == Some(CLOSE as u8) => None,
        TCP => streams::insert(key, Role::Unknown),
        UDP => {
            let place = DATAGRAM_SOCKETS.get_ptr_mut(datagram_place(key))?;
            // SAFETY: the look-up gave a valid pointer to a value of the map.
            unsafe {
                if (*place).sock != key || (*place).port != u32::from(port) {
                    fresh(place, key, Role::Unknown as u8);
                    (&raw mut (*place).transport).write(Transport::Udp as u8);
                    (&raw mut (*place).port).write(u32::from(port));
                }
                use_again(place);
            }
            Some(place)
        }
        _ => None,
    }
}

/// A socket that tells no end is used: after some silence its owner is told anew, because the daemon may have forgotten it.
///
/// # Safety
///
/// `connection` must be a valid pointer to a value of a map.
#[inline(always)]
pub unsafe fn use_again(connection: *mut Connection) {
    let now_s = (place::now_ns() / 1_000_000_000) as u32;
    // SAFETY: given by the caller.
    unsafe {
        if now_s.wrapping_sub((*connection).used_s) > SILENCE_S {
            (&raw mut (*connection).tgid).write(0);
        }
        (&raw mut (*connection).used_s).write(now_s);
    }
}

/// The place of a socket of datagrams.
#[inline(always)]
fn datagram_place(sock: u64) -> u32 {
    place_of_address(sock, DATAGRAM_SOCKETS_MAX)
}

/// A TCP connection goes from one state to another.
#[inline(always)]
pub fn on_state(sock: *const c_void, old: i32, new: i32) -> i32 {
    if !socket::is_tcp(sock) {
        return 0;
    }
    match (old, new) {
        (_, SYN_SENT) => begin(sock, Role::Client),
        (SYN_SENT, ESTABLISHED) => establish(sock),
        (SYN_RECV, ESTABLISHED) => {
            begin(sock, Role::Server);
            establish(sock);
        }
        (LISTEN, CLOSE) => {}
        (_, CLOSE) => close(sock, old),
        (ESTABLISHED, _) => leave(sock, new),
        _ => {}
    }
    0
}

/// A connection begins. One that is known at its address has ended, unseen.
#[inline(always)]
fn begin(sock: *const c_void, role: Role) {
    close(sock, CLOSE);
    let Some(connection) = streams::insert(sock as u64, role) else { return };
    if role as u32 == Role::Client as u32 {
        // It is in its call: later states come with the packets.
        let (tgid, _) = task::current_ids();
        // SAFETY: the look-up gave a valid pointer to a value of the map.
        unsafe {
            (&raw mut (*connection).begun_ns).write(place::now_ns());
            (&raw mut (*connection).opener).write(tgid);
        }
    }
}

/// A connection is there: it is told before anything is said over it.
#[inline(always)]
fn establish(sock: *const c_void) {
    let Some(connection) = streams::get(sock as u64) else { return };
    // SAFETY: the look-up gave a valid pointer to a value of the map; the record's room is that of one record.
    unsafe {
        let sequence = ends::sequence(sock, (*connection).role == Role::Client as u8);
        (&raw mut (*connection).sequence).write(sequence);
        (&raw mut (*connection).opened_ns).write(place::now_ns());
        let tgid = (*connection).opener;
        if tgid == OWN_TGID.load() {
            return;
        }
        let _counted = emit::flow_in_place(|record: *mut OpenRecord| {
            let cgroup_id = socket::cgroup_id(sock);
            let task = Task { tgid, tid: 0, start_ns: 0, cgroup_id, comm: [0; COMM_BYTES] };
            (&raw mut (*record).task).write(task);
            fill_open(record, connection, sock);
        });
    }
}

/// The first of both ends says that it will send nothing more.
#[inline(always)]
fn leave(sock: *const c_void, new: i32) {
    if let Some(connection) = streams::get(sock as u64) {
        // SAFETY: the look-up gave a valid pointer to a value of the map.
        unsafe { (&raw mut (*connection).left).write(new as u32) };
    }
}

/// Fills everything but the task.
///
/// # Safety
///
/// `record` must be writable, `connection` a valid pointer to a value of a map.
#[inline(always)]
pub unsafe fn fill_open(record: *mut OpenRecord, connection: *mut Connection, sock: *const c_void) {
    // SAFETY: given by the caller.
    unsafe {
        let sock_key = (*connection).sock;
        let is_datagram = (*connection).transport == Transport::Udp as u8;
        let key = if is_datagram { datagram_place(sock_key).into() } else { sock_key };
        (&raw mut (*record).head).write(task::head(Kind::Open, size_of::<OpenRecord>() as u32));
        (&raw mut (*record).connection).write((*connection).number);
        ends::copy(sock, &raw mut (*record).ends);
        (&raw mut (*record).role).write((*connection).role.into());
        (&raw mut (*record).padding).write(0);
        (&raw mut (*record).sequence).write((*connection).sequence);
        (&raw mut (*record).key).write(key);
    }
}

/// Tells the daemon whose the connection is, at its first message and when another process goes on with it.
///
/// # Safety
///
/// `connection` must be a valid pointer to a value of a map.
#[inline(always)]
pub unsafe fn keep_owner(connection: *mut Connection, sock: *const c_void, tgid: u32, follows_unix: bool) {
    // SAFETY: given by the caller; the record's room is that of one record.
    unsafe {
        if (*connection).tgid == tgid {
            return;
        }
        let sequence = (*connection).sequence;
        let wire = if sequence == 0 { ends::wire(sock) } else { (sequence >> 32 ^ sequence) as u32 };
        (&raw mut (*connection).wire).write(wire);
        let is_told = if follows_unix && (*connection).transport == Transport::Unix as u8 {
            unix::tell(connection, sock)
        } else {
            emit::flow_in_place(|record: *mut OpenRecord| {
                (&raw mut (*record).task).write(task::current());
                fill_open(record, connection, sock);
            })
        };
        // What found no room is told with the next message.
        if is_told {
            (&raw mut (*connection).tgid).write(tgid);
        }
    }
}

/// Counts a message, and says what is wanted of it.
///
/// # Safety
///
/// As [`keep_owner`].
#[inline(always)]
pub unsafe fn count(connection: *mut Connection, length: u32, way: Way) -> Message {
    // SAFETY: given by the caller. Two threads that send over one connection at once may count wrong: the daemon sees a
    // position that does not fit.
    unsafe {
        let slot = (&raw mut (*connection).moved).cast::<u64>().add(way as usize);
        let position = *slot;
        slot.write(position.wrapping_add(u64::from(length)));
        let is_turn = (*connection).last_way != way as u8;
        let wish = wish(connection, way);
        if is_turn {
            (&raw mut (*connection).last_way).write(way as u8);
            (&raw mut (*connection).batch).write(0);
            if (*connection).first_way == NO_WAY {
                (&raw mut (*connection).first_way).write(way as u8);
            }
            if begins_exchange(connection, way) {
                // An exchange is left out as a whole, or turns would be told that nobody can count.
                let is_skipping = match wish {
                    // Of one whose begin was not seen it may be a response, so that both ends would not agree.
                    Wish::Bytes(_) if (*connection).role == Role::Unknown as u8 => false,
                    Wish::Bytes(limit) => limit != 0 && is_over_budget((*connection).wire, position, way),
                    Wish::Undecided => false,
                    Wish::Late => {
                        leave_out(way);
                        true
                    }
                };
                (&raw mut (*connection).is_skipping).write(is_skipping as u16);
            }
        } else {
            (&raw mut (*connection).batch).write((*connection).batch.wrapping_add(1));
        }
        let mut message = Message {
            connection: (*connection).number,
            position,
            length,
            wanted_bytes: 0,
            number: (*connection).messages,
            turns: (*connection).turns,
            number_in_call: (*connection).batch,
            is_after_skip: (*connection).has_skipped != 0,
            is_datagram: (*connection).transport == Transport::Udp as u8,
        };
        if (*connection).is_skipping != 0 {
            (&raw mut (*connection).has_skipped).write(1);
            return message;
        }
        message.number = message.number.wrapping_add(1);
        message.turns = message.turns.wrapping_add(is_turn as u32);
        let limit = match wish {
            Wish::Bytes(limit) => limit,
            Wish::Undecided | Wish::Late => CAPTURE_UNDECIDED_BYTES,
        };
        message.wanted_bytes = if limit < length { limit } else { length };
        (&raw mut (*connection).messages).write(message.number);
        (&raw mut (*connection).turns).write(message.turns);
        (&raw mut (*connection).has_skipped).write(0);
        message
    }
}

/// The newest message finds room in the ring.
///
/// # Safety
///
/// As [`keep_owner`].
#[inline(always)]
pub unsafe fn has_told(connection: *mut Connection) {
    // SAFETY: given by the caller.
    unsafe { (&raw mut (*connection).told_turns).write((*connection).turns) };
}

/// Exchanges that began after the last message that found room: nobody else can tell of them. None of a connection that the daemon
/// wants nothing of.
///
/// # Safety
///
/// As [`keep_owner`].
#[inline(always)]
unsafe fn untold_exchanges(connection: *mut Connection) -> u32 {
    // SAFETY: given by the caller.
    let (last_way, turned, is_left) = unsafe {
        let is_left = matches!(wish(connection, Way::Sent), Wish::Bytes(0));
        let turned = (*connection).turns.wrapping_sub((*connection).told_turns);
        (u32::from((*connection).last_way), turned, is_left)
    };
    if is_left || turned == 0 {
        return 0;
    }
    // Directions alternate: the first one that is missing is that of the last one, or the other one.
    let is_sent = (last_way ^ turned ^ 1) & 1 == Way::Sent as u32;
    let first_way = if is_sent { Way::Sent } else { Way::Received };
    // SAFETY: given by the caller.
    let begins_with_request = unsafe { begins_exchange(connection, first_way) };
    turned.wrapping_add(begins_with_request as u32) / 2
}

/// What the daemon wants of a message.
enum Wish {
    /// So many bytes at most.
    Bytes(u32),
    /// It has not said so yet, and may soon.
    Undecided,
    /// It has not said so although it had enough to do so.
    Late,
}

/// What the daemon wants of a message.
///
/// # Safety
///
/// As [`keep_owner`].
#[inline(always)]
unsafe fn wish(connection: *mut Connection, way: Way) -> Wish {
    // SAFETY: given by the caller.
    let (connection, messages) = unsafe { ((*connection).number, (*connection).messages) };
    let decision = DECISIONS.get(place_of(connection as u32, DECISIONS_MAX)).copied().unwrap_or(0);
    if decision >> 32 == connection & 0xffff_ffff {
        return match way {
            Way::Sent => Wish::Bytes(decision as u32 >> 16),
            Way::Received => Wish::Bytes(decision as u32 & 0xffff),
        };
    }
    if messages >= CAPTURE_UNDECIDED_MESSAGES { Wish::Late } else { Wish::Undecided }
}

/// Whether a message that goes this way, after one of the other, is a request. Where nobody knows who asks, it is who spoke first.
///
/// # Safety
///
/// As [`keep_owner`].
#[inline(always)]
unsafe fn begins_exchange(connection: *mut Connection, way: Way) -> bool {
    // SAFETY: given by the caller.
    let (role, first_way) = unsafe { ((*connection).role, (*connection).first_way) };
    if role == Role::Unknown as u8 {
        return first_way == way as u8;
    }
    match way {
        Way::Sent => role == Role::Client as u8,
        Way::Received => role == Role::Server as u8,
    }
}

/// Whether an exchange is one of those that are left out: both ends of its connection answer the same.
#[inline(always)]
fn is_over_budget(wire: u32, position: u64, way: Way) -> bool {
    let share = SKIP_SHARE.get(0).copied().unwrap_or(0);
    if share == 0 {
        return false;
    }
    // Finalizer of MurmurHash3 (Appleby, public domain), so that neighbours differ in all bits.
    let mut hash = u64::from(wire) << 32 ^ position;
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let is_over = ((hash >> 32) as u32) < share;
    if is_over {
        leave_out(way);
    }
    is_over
}

/// Counts an exchange that is left out, by the way of the message that it begins with: each way has a program of its own.
#[inline(always)]
fn leave_out(way: Way) {
    let counter = match way {
        Way::Sent => KernelCounter::OverBudgetSent,
        Way::Received => KernelCounter::OverBudgetReceived,
    };
    emit::count_alone(Signal::Span, counter);
}

/// A connection of which nothing is known yet.
///
/// # Safety
///
/// `connection` must be writable.
#[inline(always)]
pub unsafe fn fresh(connection: *mut Connection, sock: u64, role: u8) {
    // SAFETY: given by the caller.
    unsafe {
        connection.write(Connection {
            sock,
            number: new_number(),
            moved: [0; 2],
            messages: 0,
            turns: 0,
            tgid: 0,
            batch: 0,
            wire: 0,
            last_way: NO_WAY,
            first_way: NO_WAY,
            role,
            transport: Transport::Tcp as u8,
            is_skipping: 0,
            has_skipped: 0,
            told_turns: 0,
            used_s: 0,
            left: 0,
            begun_ns: 0,
            opened_ns: 0,
            sequence: 0,
            opener: 0,
            port: 0,
        });
    }
}

/// A number that no other connection has. CPUs take turns, so that each of the last connections has a place of its own.
#[inline(always)]
fn new_number() -> u64 {
    let Some(counter) = NUMBERED.get_ptr_mut(0) else { return 0 };
    // SAFETY: the look-up gave a valid pointer to this CPU's value; the helper has no preconditions.
    unsafe {
        let count = (*counter).wrapping_add(1);
        counter.write(count);
        count.wrapping_mul(u64::from(CPUS.load())).wrapping_add(u64::from(bpf_get_smp_processor_id()))
    }
}

#[inline(always)]
fn close(sock: *const c_void, old: i32) {
    let Some(connection) = streams::get(sock as u64) else { return };
    // SAFETY: the look-up gave a valid pointer to a value of the map; the ring gave room for one record.
    unsafe {
        let tgid = if (*connection).tgid == 0 { (*connection).opener } else { (*connection).tgid };
        if tgid != OWN_TGID.load() {
            let untold_exchanges = u64::from(untold_exchanges(connection));
            let is_told = emit::flow_in_place(|record: *mut CloseRecord| {
                (&raw mut (*record).untold_exchanges).write(untold_exchanges);
                (&raw mut (*record).head).write(task::head(Kind::Close, size_of::<CloseRecord>() as u32));
                (&raw mut (*record).connection).write((*connection).number);
                (&raw mut (*record).messages).write((*connection).messages);
                (&raw mut (*record).turns).write((*connection).turns);
                (&raw mut (*record).begun_ns).write((*connection).begun_ns);
                (&raw mut (*record).opened_ns).write((*connection).opened_ns);
                (&raw mut (*record).moved).write((*connection).moved);
                (&raw mut (*record).states).write([(*connection).left, old as u32]);
                (&raw mut (*record).cgroup_id).write(socket::cgroup_id(sock));
                (&raw mut (*record).tgid).write(tgid);
                (&raw mut (*record).role).write((*connection).role.into());
                ends::copy(sock, &raw mut (*record).ends);
                tcp::copy_counts(sock, record);
            });
            if !is_told {
                emit::count_several(Signal::Span, KernelCounter::RingFull, untold_exchanges);
            }
        }
    }
    streams::remove(sock as u64);
}
