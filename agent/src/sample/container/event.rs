//! What engines say that happened, in the few words that a container's life is told with.
//!
//! An event carries all labels, and of an exec its command line: neither is looked at, and what is asked for leaves
//! execs out, so that they are not even sent.

use std::collections::HashMap;

use bollard::models::EventMessage;
use dunlin_shared::time::WallMs;

/// What the engine says, at its own time, of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: WallMs,
    pub id: Box<str>,
    pub word: Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Created,
    Started,
    Ended {
        exit_code: Option<i32>,
        /// The host ran out of memory lately: what an engine that does not tell OOM kills is helped with.
        is_host_short: bool,
    },
    /// Somebody sent it a signal. Podman does not say which.
    Signalled(Option<u8>),
    /// Somebody's stop is done.
    Stopped,
    OutOfMemory,
    /// Podman's clean-up after an end.
    CleanedUp,
    /// Another name, state, health or limit: an inspect says which.
    Changed,
    Removed,
}

/// By both engines' names. Docker takes each as a beginning, Podman as a whole.
const WANTED: [&str; 15] = [
    "create",
    "start",
    "die",
    "died",
    "oom",
    "kill",
    "stop",
    "cleanup",
    "pause",
    "unpause",
    "rename",
    "update",
    "health_status",
    "destroy",
    "remove",
];

/// An engine's id of a container: 64 hexadecimal digits today. It becomes part of a path that is asked for.
const ID_CHARS_MAX: usize = 128;

/// What the events are asked for by.
pub(super) fn filters() -> HashMap<String, Vec<String>> {
    let wanted = WANTED.map(str::to_owned).to_vec();
    HashMap::from([("type".to_owned(), vec!["container".to_owned()]), ("event".to_owned(), wanted)])
}

/// None for what says nothing of a container's life.
pub fn event_of(message: &EventMessage) -> Option<Event> {
    let actor = message.actor.as_ref()?;
    let id = actor.id.as_deref().filter(|id| is_id(id))?;
    let attribute = |name: &str| actor.attributes.as_ref()?.get(name).map(String::as_str);
    let word = match message.action.as_deref()? {
        "create" => Word::Created,
        "start" => Word::Started,
        "die" | "died" => {
            let code = attribute("exitCode").or_else(|| attribute("containerExitCode"));
            Word::Ended { exit_code: code.and_then(|code| code.parse().ok()), is_host_short: false }
        }
        "oom" => Word::OutOfMemory,
        "kill" => Word::Signalled(attribute("signal").and_then(signal)),
        "stop" => Word::Stopped,
        "cleanup" => Word::CleanedUp,
        "pause" | "unpause" | "rename" | "update" => Word::Changed,
        "destroy" | "remove" => Word::Removed,
        action if action.starts_with("health_status") => Word::Changed,
        _ => return None,
    };
    let nanoseconds = message.time_nano.map(|ns| ns / 1_000_000);
    let at = nanoseconds.or_else(|| message.time.map(|s| s.saturating_mul(1_000)))?;
    Some(Event { at: WallMs(at), id: id.into(), word })
}

pub fn is_id(text: &str) -> bool {
    (12..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A signal by number or by name, as engines write it.
pub fn signal(text: &str) -> Option<u8> {
    /// In the order of their numbers on Linux, from 1 on.
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    /// The C library keeps two of the kernel's for itself.
    const REAL_TIME_MIN: u8 = 34;
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let above = rest.strip_prefix('+').map_or(Some(0), |above| above.parse::<u8>().ok())?;
        return REAL_TIME_MIN.checked_add(above).filter(|&number| number <= 64);
    }
    let at = NAMES.iter().position(|known| *known == name)?;
    u8::try_from(at + 1).ok()
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const ID: &str = "0123456789abcdef";

    fn message(action: &str, attributes: &[(&str, &str)]) -> EventMessage {
        let pairs: Vec<_> = attributes.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        let text = format!(
            r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"{ID}","Attributes":{{{}}}}},"scope":"local","time":7,"timeNano":7123456789}}"#,
            pairs.join(",")
        );
        serde_json::from_str(&text).expect("an event")
    }

    fn word(action: &str, attributes: &[(&str, &str)]) -> Option<Word> {
        event_of(&message(action, attributes)).map(|event| event.word)
    }

    #[test]
    fn both_engines_words_for_one_thing_are_one() {
        let ended = |exit_code| Some(Word::Ended { exit_code, is_host_short: false });
        assert_eq!(word("die", &[("exitCode", "137")]), ended(Some(137)));
        assert_eq!(word("died", &[("containerExitCode", "3")]), ended(Some(3)));
        assert_eq!(word("die", &[("exitCode", "x")]), ended(None));
        assert_eq!((word("destroy", &[]), word("remove", &[])), (Some(Word::Removed), Some(Word::Removed)));
        assert_eq!(word("kill", &[("signal", "15")]), Some(Word::Signalled(Some(15))));
        assert_eq!(word("kill", &[]), Some(Word::Signalled(None)));
        assert_eq!(word("health_status: healthy", &[]), Some(Word::Changed));
        for action in ["exec_create: sh -c S3CRET", "exec_die", "attach", "top", ""] {
            assert_eq!(word(action, &[]), None, "{action}");
        }
        assert_eq!(event_of(&message("start", &[])).map(|event| event.at), Some(WallMs(7_123)));
    }

    #[test]
    fn an_id_that_could_be_part_of_a_path_is_none() {
        for id in ["../../../images", "", "abc", "0123456789ab?x", &"a".repeat(200)] {
            assert!(!is_id(id), "{id}");
        }
        assert!(is_id(&"0123456789abcdef".repeat(4)));
    }

    #[test]
    fn signals_have_names_and_numbers() {
        let cases =
            [("15", 15), ("SIGQUIT", 3), ("KILL", 9), ("SIGWINCH", 28), ("SIGRTMIN+3", 37), ("RTMIN", 34), ("SYS", 31)];
        for (text, number) in cases {
            assert_eq!(signal(text), Some(number), "{text}");
        }
        for text in ["0", "65", "", "SIG", "RTMIN+99", "RTMIN+300", "-1"] {
            assert_eq!(signal(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_event_is_told_or_left_out(
            action in prop_oneof![select(&WANTED[..]).prop_map(str::to_owned), any::<String>()],
            id in prop_oneof![Just(ID.to_owned()), "[0-9a-z/.]{0,140}", any::<String>()],
            name in select(&["signal", "exitCode", "containerExitCode", "PASS"][..]),
            value in prop_oneof!["-?[0-9]{1,12}", "(SIG)?(KILL|RTMIN([+][0-9]{1,4})?)", any::<String>()],
            time: Option<i64>,
            time_nano: Option<i64>,
        ) {
            let attributes = Some(HashMap::from([(name.to_owned(), value)]));
            let is_known = WANTED.contains(&&*action) || action.starts_with("health_status");
            let is_told = is_known && is_id(&id) && (time.is_some() || time_nano.is_some());
            let actor = Some(EventActor { id: Some(id.clone()), attributes });
            let message = EventMessage { action: Some(action), actor, time, time_nano, ..EventMessage::default() };
            let event = event_of(&message);
            prop_assert_eq!(event.as_ref().map(|event| &*event.id), is_told.then_some(&*id));
            if let Some(Event { word: Word::Signalled(Some(number)), .. }) = event {
                prop_assert!((1..=64).contains(&number));
            }
        }

        #[test]
        fn an_event_of_any_bytes_is_read_or_refused(at in 0_usize..200, byte: u8) {
            let mut text = format!(r#"{{"Action":"die","Actor":{{"ID":"{ID}","Attributes":{{"exitCode":"1"}}}},"timeNano":7}}"#).into_bytes();
            let at = at % text.len();
            text[at] = byte;
            if let Ok(message) = serde_json::from_slice(&text) {
                prop_assert!(event_of(&message).is_none_or(|event| is_id(&event.id)));
            }
        }

        #[test]
        fn any_text_is_a_signal_or_none(text in prop_oneof!["[-+]?[0-9]{1,4}", "(SIG)?(RTMIN)?[+]?[A-Z0-9]{0,6}", any::<String>()]) {
            prop_assert!(signal(&text).is_none_or(|number| (1..=64).contains(&number)));
        }
    }
}
