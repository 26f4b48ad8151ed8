//! Names of processes from command lines as programs make them, and nothing else of those.

use proptest::prelude::*;

use super::super::stat::NAME_BYTES;
use super::*;

fn comm(name: &str) -> [u8; NAME_BYTES] {
    let mut padded = [0; NAME_BYTES];
    for (to, from) in padded.iter_mut().zip(name.bytes().take(NAME_BYTES - 1)) {
        *to = from;
    }
    padded
}

fn line(arguments: &[&str]) -> Vec<u8> {
    arguments.iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect()
}

/// The program, and what it runs if it is an interpreter.
fn names(name: &str, arguments: &[&str]) -> (String, Option<String>) {
    let (line, name) = (line(arguments), comm(name));
    let called = called(&line, &name);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(called.is_interpreter || called.script.is_none());
    (text(called.program), called.script.map(text))
}

#[test]
fn programs_are_called_by_their_base_name() {
    for (name, argument, program) in [
        ("mysqld", "/usr/sbin/mysqld", "mysqld"),
        ("systemd-journal", "/lib/systemd/systemd-journald", "systemd-journald"),
        ("bash", "-bash", "bash"),
        ("(sd-pam)", "(sd-pam)", "(sd-pam)"),
        ("server", "/opt/My App/bin/server", "server"),
        ("My App", "/opt/My App", "My App"),
        ("nginx", "nginx: worker process", "nginx"),
        ("redis-server", "/usr/bin/redis-server *:6379", "redis-server"),
        ("postgres", "postgres: 15/main: app orders 10.0.0.1(5) idle", "postgres"),
        ("sshd", "sshd: root@pts/0", "sshd"),
        ("busybox", "sleep", "sleep"),
        ("exe", "/proc/self/exe", "exe"),
        ("anything", "", "anything"),
        // The kernel's name ends after fifteen bytes, and a title may go on after the name.
        ("Plex Media Serv", "/usr/lib/plex/Plex Media Server", "Plex Media Server"),
        ("payment-gateway", "payment-gateway-worker: key S3CRET", "payment-gateway-worker"),
        ("payment-gateway", "payment-gateway --password=S3CRET", "payment-gateway"),
        ("payment-gateway", "payment-gateway@S3CRET", "payment-gateway"),
    ] {
        assert_eq!(names(name, &[argument, "--password=S3CRET", "S3CRET"]).0, program);
    }
    assert_eq!(called(b"", &comm("kworker/0:1")).program, b"kworker/0:1");
    assert_eq!(called(b"", &comm("")).program, b"?");
}

#[test]
fn interpreters_are_told_by_what_they_run() {
    for (arguments, script) in [
        (&["/usr/bin/python3.11", "-u", "/srv/app/manage.py", "runserver"][..], "manage.py"),
        (&["python3", "-m", "uvicorn", "app:main"], "uvicorn"),
        (&["python3", "-Bm", "celery", "-A", "x"], "celery"),
        (&["python3", "-W", "ignore", "-Xdev", "-Wonce", "a.py"], "a.py"),
        (&["/usr/bin/python3", "/usr/bin/unattended-upgrade-shutdown", "--wait"], "unattended-upgrade-shutdown"),
        (
            &["java", "-Xmx1g", "-Dpassword=S3CRET", "-cp", "/a:/b", "org.elasticsearch.server.Main"],
            "org.elasticsearch.server.Main",
        ),
        (&["/opt/jdk/bin/java", "--add-opens", "a/b=c", "-jar", "/srv/shop.jar", "S3CRET"], "shop.jar"),
        (&["node", "--require", "./hook.js", "--max-old-space-size=4096", "/srv/server.js"], "server.js"),
        (&["bash", "-eu", "-o", "pipefail", "/etc/cron.daily/backup"], "backup"),
        (&["sh", "--", "run"], "run"),
        (&["php", "-d", "a=b", "-f", "/srv/queue.php"], "queue.php"),
        (&["php8.2", "artisan", "queue:work"], "artisan"),
        (&["perl", "-w", "-I", "lib", "tool.pl"], "tool.pl"),
        (&["dotnet", "exec", "--depsfile", "x.json", "/app/Api.dll"], "Api.dll"),
        (&["deno", "run", "--allow-net", "main.ts"], "main.ts"),
    ] {
        assert_eq!(names("", arguments).1.as_deref(), Some(script), "{arguments:?}");
    }
}

#[test]
fn what_may_be_code_or_a_secret_names_nothing() {
    for arguments in [
        &["bash", "-c", "S3CRET"][..],
        &["sh", "-ec", "S3CRET"],
        &["sh", "-s", "S3CRET"],
        &["python3", "-", "S3CRET"],
        &["python3", "-Bc", "S3CRET"],
        &["perl", "-lane", "S3CRET"],
        &["node", "--eval", "S3CRET"],
        &["node", "-pe", "S3CRET"],
        &["php", "-r", "S3CRET"],
        &["java", "@S3CRET"],
        &["node", "--unknown-option", "4096"],
        &["python3", "password=S3CRET"],
        &["python3", "S3CRET in words"],
        &["beam.smp", "-setcookie", "S3CRET"],
        &["ruby"],
    ] {
        let (program, script) = names("", arguments);
        assert_eq!((program.as_str(), script), (arguments[0], None), "{arguments:?}");
    }
    // Cut in the middle of an argument, the rest of it is not known.
    assert_eq!(called(b"python3\0-u\0/srv/applic", &comm("python3")).script, None);
}

#[test]
fn what_is_no_interpreter_has_no_script() {
    for program in ["php-fpm8.2", "nodejs-exporter", "perlbal", "javac", "shim", "3", "..."] {
        assert_eq!(names("", &[program, "a.py"]), (program.to_owned(), None));
    }
}

proptest! {
    #[test]
    fn arbitrary_command_lines_have_a_name(line: Vec<u8>, name: [u8; NAME_BYTES]) {
        let called = called(&line, &name);
        prop_assert!(!called.program.is_empty());
        let script = called.script.unwrap_or(b"x");
        prop_assert!(!script.is_empty() && !script.contains(&b'/') && !script.contains(&b'='));
    }

    #[test]
    fn no_option_of_an_interpreter_is_taken_for_its_script(
        which in 0..LANGUAGES.len(),
        rest in proptest::collection::vec("-{1,2}[a-zA-Z]{1,4}", 0..6),
    ) {
        let mut arguments = vec![LANGUAGES[which].names[0]];
        arguments.extend(rest.iter().map(String::as_str));
        let script = names("", &arguments).1.unwrap_or_default();
        prop_assert!(!script.starts_with('-'));
    }
}
