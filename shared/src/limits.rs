//! Every limit that a peer can run into, in one place. Each is checked before anything is decoded
//! or allocated for it.

/// A message on any stream, its length prefix apart. A frame of 150 series has 150 to 1,000 bytes;
/// 64 KiB holds a keyframe of about 8,000 series.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The body of one piece of a keyframe or inventory: a message less its head.
pub const PIECE_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 64;

/// Pieces of one body: about 1 MiB, a node with every subject and series it may have.
pub const PIECES_MAX: u16 = 16;

/// Frames in a group: a keyframe and 29 deltas, five minutes at a 10 s tick.
pub const GROUP_FRAMES_MAX: u16 = 30;

pub const SUBJECTS_MAX: usize = 2_000;
pub const SERIES_MAX: usize = 16_384;
/// Metrics of the open name space `x_*` that one node may declare.
pub const OPEN_METRICS_MAX: usize = 256;
/// A mount point or unit name may have 255 bytes; what is longer is cut by the sampler.
pub const SUBJECT_NAME_BYTES_MAX: usize = 255;
pub const METRIC_NAME_BYTES_MAX: usize = 96;
pub const HOST_NAME_BYTES_MAX: usize = 255;
pub const VERSION_BYTES_MAX: usize = 48;
pub const FACT_BYTES_MAX: usize = 255;

/// Labels of a node, whoever gave them.
pub const LABELS_MAX: usize = 32;
pub const LABEL_KEY_BYTES_MAX: usize = 63;
pub const LABEL_VALUE_BYTES_MAX: usize = 255;

/// Items of an inventory, by kind. Half as many containers and as many ports as a node may have subjects.
pub const CONTAINERS_MAX: u32 = 1_000;
pub const PORTS_MAX: u32 = 2_000;
pub const GROUPS_MAX: u32 = 256;
pub const UNITS_MAX: u32 = 512;
pub const SOURCES_MAX: u32 = 16;
pub const ITEMS_MAX: usize = 4_096;
/// All items of a node, encoded: what happened fits beside them in the pieces of one body.
pub const STOCK_BYTES_MAX: usize = 768 * 1024;
/// Things that happened, in one message.
pub const HAPPENINGS_MAX: usize = 256;
/// Of one container.
pub const PUBLISHED_MAX: usize = 64;
pub const NETWORKS_MAX: usize = 16;
pub const CONTAINER_LABELS_MAX: usize = 16;

/// 160 bits: nobody guesses one.
pub const JOIN_TOKEN_SECRET_BYTES: usize = 20;
/// A P-256 key in its envelope has 91 bytes, an RSA key of 4,096 bits would have 550.
pub const PUBLIC_KEY_BYTES_MAX: usize = 256;
/// An ECDSA signature on P-256 has at most 72.
pub const PROOF_BYTES_MAX: usize = 128;
/// Ours have about 450.
pub const CERTIFICATE_BYTES_MAX: usize = 2_048;
/// A leaf, the authority that follows today's, and today's.
pub const CHAIN_MAX: usize = 4;
/// Today's authority, the one before and the one after.
pub const AUTHORITIES_MAX: usize = 4;
/// Everything that is said on a connection that enrols, each way.
pub const JOIN_BYTES_MAX: usize = 16 * 1024;
/// How long the live session of a node has to answer when another one says that it is this node.
pub const CHALLENGE_MS: u64 = 10_000;

/// Epochs that a Hello may list: the oldest are given up as a gap by the agent before it says Hello.
pub const EPOCHS_MAX: usize = 64;
/// Ranges of one epoch in a Welcome. Above it the collector names the lowest; what is resent in
/// vain is a duplicate and costs its bytes alone.
pub const HELD_RANGES_MAX: usize = 64;
/// Ranges in one Ack or Nack.
pub const ACK_RANGES_MAX: usize = 8;
/// Live frames to an Ack. Two thirds of the acknowledgement's packets are saved against 1, and an
/// agent that dies loses at most two ticks' worth of certainty.
pub const ACK_EVERY_LIVE: u8 = 3;

/// Streams that a peer may open: control, live, backlog, and one to change over with.
pub const UNI_STREAMS_MAX: u32 = 3;
pub const BIDI_STREAMS_MAX: u32 = 1;
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
pub const CONNECTION_WINDOW_BYTES: u32 = 128 * 1024;

/// From the first packet to a Hello.
pub const HANDSHAKE_MS: u64 = 5_000;
/// From an agent's Hello to the Welcome: it may have to wait for what another session answers.
pub const WELCOME_MS: u64 = HANDSHAKE_MS + CHALLENGE_MS;
/// A connection without a packet for so long is gone. Twice the interval of heartbeats and some,
/// so that one lost heartbeat costs nothing.
pub const IDLE_TIMEOUT_MS: u64 = 30_000;
/// Silence after which an agent sends a heartbeat: a second more than the default tick, so that a
/// tick that is a little late is not doubled, and well below the 15 s after which a node is suspect.
pub const HEARTBEAT_MS: u64 = 11_000;
/// An agent that sent frames and hears nothing of them for so long, on top of the ticks that an
/// acknowledgement is bundled over, takes the connection for wedged and makes a new one.
pub const ACK_PATIENCE_MS: u64 = 60_000;
/// How long an agent listens to a collector that is being stopped. That one lets its connections end for 3 s.
pub const LISTEN_MS: u64 = 15_000;
/// No collector may send an agent away, or have it wait with what it has to send, for longer.
pub const ASKED_MS_MAX: u32 = 3_600_000;
/// Frames that an agent that stops sends without a pause: what changed at the last tick, and what a short outage left.
/// Far below the burst that a connection may send; more is kept for the next run.
pub const LAST_FRAMES_MAX: u64 = 16;
/// How long an agent that stops waits for its last acknowledgement.
pub const DRAIN_MS: u64 = 2_000;

/// Sampling intervals that a configuration or a collector may ask for.
pub const INTERVAL_MS_MIN: u64 = 1_000;
pub const INTERVAL_MS_MAX: u64 = 300_000;

/// Messages a connection may send at once, and per second after that. An agent at a 1 s tick sends
/// one live and two backlog frames a second and a few control messages.
pub const MESSAGE_BURST: u32 = 120;
pub const MESSAGES_PER_S: u32 = 12;

/// Frames that a node may send in each of its intervals, beside that burst: one live, two of the backlog, one of the
/// inventory, and as much again twice over. What it said in its Hello counts, up to so long: an agent whose
/// interval is set lower goes on under the old Hello, and still fits.
pub const FRAMES_PER_INTERVAL: u32 = 12;
pub const AGREED_INTERVAL_MS_MAX: u32 = 10_000;
/// A message or frame that was begun must be whole after this. The largest then takes 140 kbit/s, an ordinary one 200 bit/s.
pub const UNFINISHED_MS: u64 = 60_000;
/// What all nodes together may have begun and not finished. Beyond it, of those that hold more than a message nothing is
/// read, and they are cut off when that goes on for longer than a handshake may take. What 10,000 nodes begin at once is
/// no more than this, and whole at once.
pub const UNFINISHED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// New names that one node may bring at once, and per hour after that: of subjects, and of metrics of the open name space. It
/// has as many as it may have, all of them change once, and some to spare; an hour later it has a thousand containers anew.
pub const NAMES_BURST: u32 = 5_000;
pub const NAMES_PER_HOUR: u32 = 3_600;

/// First packets of connections that are answered at once, and per second after that: those of a fleet of 10,000 that
/// starts at once, and what takes a tenth of a processor. For networks with nodes and for all others each; and as
/// many that come back as they were asked to.
pub const FIRST_PACKETS_BURST: u32 = 10_000;
pub const FIRST_PACKETS_PER_S: u32 = 5_000;
/// Of packets of no connection that may still mean something: that a peer knows ours no more.
pub const STRAY_PACKETS_PER_S: u32 = 1_000;
/// Handshakes of one network that came to nothing, at once and per second after that. A fleet behind one address whose
/// certificates are all refused comes again at a pause of its own.
pub const FAILED_HANDSHAKES_BURST: u32 = 512;
pub const FAILED_HANDSHAKES_PER_S: u32 = 32;

/// Incoming connections whose handshake is under way, in all and from one /24 or /56.
pub const HANDSHAKES_MAX: usize = 512;
pub const HANDSHAKES_PER_PREFIX_MAX: usize = 128;
/// Handshakes under way above which a new peer must first prove its address with a Retry.
pub const HANDSHAKES_BEFORE_RETRY: usize = 64;
/// Datagrams that QUIC keeps for a connection that is not accepted yet: one client flight.
pub const INCOMING_BUFFER_BYTES: u64 = 16 * 1024;
/// All those together.
pub const INCOMING_BUFFER_TOTAL_BYTES: u64 = 4 * 1024 * 1024;

/// How far in the future an agent's wall clock may be before its time is replaced by the receive time.
pub const FUTURE_MS_MAX: i64 = 24 * 3_600 * 1_000;

/// Rules that a collector judges by, shipped and its own together.
pub const RULES_MAX: usize = 10_000;
/// A rule with everything that it may have takes 500 bytes: as many as there may be, in one file, and some comments.
pub const RULE_FILE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a rule says in `when` or `clear`. A page of text is no condition that anybody understands.
pub const RULE_TEXT_BYTES_MAX: usize = 4 * 1024;
/// Levels of a condition, in parentheses or in one chain: what walks it needs little stack, and is no longer than a screen.
pub const RULE_DEPTH_MAX: usize = 32;
/// Different values that a rule reads.
pub const RULE_TERMS_MAX: usize = 16;
pub const RULE_NAME_BYTES_MAX: usize = 63;
/// A line on a screen, and a message of every receiver.
pub const RULE_SUMMARY_BYTES_MAX: usize = 1_024;
pub const RULE_RUNBOOK_BYTES_MAX: usize = 1_024;
pub const RULE_SUBJECTS_MAX: usize = 64;
/// A window holds two values at least, at the default interval.
pub const RULE_WINDOW_MS_MIN: u64 = 10_000;
/// A window is kept in memory for every series that a rule reads.
pub const RULE_WINDOW_MS_MAX: u64 = 24 * 3_600 * 1_000;
/// How long a rule may wait before it fires, or after its end.
pub const RULE_FOR_MS_MAX: u64 = 7 * 24 * 3_600 * 1_000;
/// A person mends a screenful at a time.
pub const RULE_ERRORS_MAX: usize = 20;
/// Sets of rules that came by the API, and their texts together.
pub const RULE_SETS_MAX: usize = 100;
pub const RULE_SETS_BYTES_MAX: usize = 4 * RULE_FILE_BYTES_MAX;
