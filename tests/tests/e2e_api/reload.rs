//! A collector that is told to read its configuration again: whole or not at all, and at once.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use dunlin_collector::record::{Event, Pos, Record};
use dunlin_collector::store::{Files, Level, Log, Reader};
use dunlin_shared::time::WallMs;
use rustix::process::Signal;

use super::tls::certify;
use super::*;

const HTTPS: &str = "https://127.0.0.1:9738";
const HOUR_MS: i64 = 3_600_000;
/// When the files of the log before this run were begun, in hours before now.
const BEGUN: [i64; 3] = [5, 4, 3];
const STAYS: &str = "the configuration stays as it was: ";
const IS_READ: &str = "the configuration was read again";

/// A log of some hours, a file each.
fn fill_window(state: &Path) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_millis();
    let now = WallMs(i64::try_from(now).expect("it fits for long"));
    let (mut log, _) = Log::open(&state.join("window"), now.plus(-BEGUN[0] * HOUR_MS), Pos(0)).expect("it is made");
    for at in BEGUN.map(|hours| now.plus(-hours * HOUR_MS)) {
        log.rotate(at, &[]).and_then(|()| log.begin()).expect("a file");
        log.append(&Record { at, event: Event::Started }).expect("it can be written");
        log.commit().expect("it can be written");
    }
    log.close().expect("it can be written");
}

/// The sealed files that hold every sample, the oldest first.
fn sealed(site: &Site) -> Vec<PathBuf> {
    let files = Files::list(&site.state().join("window")).expect("it is there");
    files.of(Level::Full).map(|name| name.path().to_owned()).collect()
}

/// Writes the file that it reads: the certificate beside it, and this retention.
fn configure(place: &Scratch, retention: &str) {
    let path = |name: &str| place.join(name).display().to_string();
    let (cert, key) = (path("http.pem"), path("http.key"));
    let text = format!("[tls]\ncert = {cert:?}\nkey = {key:?}\n[retention]\n{retention}\n");
    fs::write(place.join("collector.toml"), text).expect("it is writable");
}

impl Site {
    fn records(&self) -> usize {
        Reader::new(&self.state().join("window")).scan(Pos(0)).expect("it is there").filter(Result::is_ok).count()
    }

    /// Tells it to read its configuration again, and waits until it has said this; then for two ticks in its log, by
    /// which it has done what it does at once.
    fn reload(&mut self, says: &str) -> String {
        let before = self.collector.log_text().len();
        self.collector.signal(Signal::HUP).expect("it runs");
        let line =
            || self.collector.log_text().get(before..)?.lines().find(|line| line.contains(says)).map(str::to_owned);
        let line = until(says, LIMIT, line).unwrap_or_else(|error| panic!("{error}: {}", self.collector.log_text()));
        let records = self.records();
        until("two ticks", LIMIT, || (self.records() >= records + 2).then_some(())).expect("it goes on");
        line
    }

    /// Whether who trusts this authority alone is answered on a new connection.
    fn is_believed(&self, pin: &str) -> bool {
        let environment = [("DUNLIN_URL", HTTPS), ("DUNLIN_TOKEN", &self.admin_token()), ("DUNLIN_CA_PIN", pin)];
        let said = self.dunlin_with(&environment, &["nodes"]);
        assert!(said.code == 0 || said.err.contains("not trusted"), "{}", said.err);
        said.code == 0
    }
}

#[test]
fn a_configuration_that_is_read_again_counts_at_once_and_a_bad_one_changes_nothing() {
    let certificate = Scratch::new("certificate").expect("a place");
    let first = certify(&certificate);
    let config = certificate.join("collector.toml").display().to_string();
    configure(&certificate, "full = \"48h\"");
    let arguments = ["--config", &config, "--http-listen", "0.0.0.0:9738"];
    let mut site = Site::start_with(&arguments, |scratch| fill_window(&scratch.join("collector")));
    // The hours of all but the newest have ended.
    let is_merged =
        |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("full-1h-"));
    let all = || Some(sealed(&site)).filter(|sealed| sealed.iter().filter(is_merged).count() == BEGUN.len() - 1);
    let before = until("all is sealed and merged", LIMIT, all).expect("it is");
    assert!(site.is_believed(&first), "{before:?}");

    let second = certify(&certificate);
    configure(&certificate, "full = \"1h\"\nbytes = \"much\"");
    let line = site.reload(STAYS);
    assert!(line.contains("WARN") && line.contains(&format!("{config}:6:9: retention.bytes")), "{line}");
    assert!(site.is_believed(&first) && !site.is_believed(&second), "a file that is bad changes nothing");
    assert_eq!(sealed(&site), before);

    configure(&certificate, "full = \"1h\"");
    site.reload(IS_READ);
    until("what is too old is dropped", LIMIT, || sealed(&site).is_empty().then_some(())).expect("it is");
    assert!(site.is_believed(&second) && !site.is_believed(&first), "new connections meet the new certificate");
    assert!(site.collector.log_text().contains("dropped the oldest of the window"), "{}", site.collector.log_text());

    fs::write(certificate.join("http.key"), "x").expect("it is writable");
    let line = site.reload("the certificate for HTTP stays as it was");
    assert!(line.contains("http.key") && site.is_believed(&second), "{line}");
}
