//! What a process is called, from the beginning of its command line. Pure.
//!
//! Only the base name of the program, and of an interpreter that of its script, ever leaves this file. An option's value
//! may be a secret, so each interpreter's options are known by name, and what is not understood names nothing.

use super::stat::trimmed;

/// What names a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Called<'a> {
    /// The program's base name; never empty.
    pub program: &'a [u8],
    /// It runs what others wrote: who it is, is told by its container, its service or its script.
    pub is_interpreter: bool,
    /// The base name of its script, jar, module or class.
    pub script: Option<&'a [u8]>,
}

/// How an interpreter's arguments are read.
struct Language {
    names: &'static [&'static str],
    /// Letters that in a cluster of short options bring code, or leave no script: `-c`, `-ec`.
    code: &'static [u8],
    /// Letters that name what runs: `-m module`.
    naming: &'static [u8],
    /// Options whose value is the next argument.
    valued: &'static [&'static str],
    /// Long options that bring code or serve without a script.
    coded: &'static [&'static str],
    /// Options whose value is what runs.
    named: &'static [&'static str],
    /// Words in front of the script.
    verbs: &'static [&'static str],
    /// Its short options stand alone, as those of Java.
    is_whole: bool,
    /// False where nothing of its arguments is understood well enough.
    has_scripts: bool,
}

const PLAIN: Language = Language {
    names: &[],
    code: b"",
    naming: b"",
    valued: &[],
    coded: &[],
    named: &[],
    verbs: &[],
    is_whole: false,
    has_scripts: true,
};

const LANGUAGES: &[Language] = &[
    Language {
        names: &["python", "pypy", "pypy3"],
        code: b"c",
        naming: b"m",
        valued: &["-W", "-X", "-Q", "--check-hash-based-pycs"],
        ..PLAIN
    },
    Language {
        names: &["bash", "sh", "dash", "ash", "zsh", "ksh", "mksh", "fish"],
        code: b"cs",
        valued: &["-o", "+o", "-O", "+O", "--rcfile", "--init-file", "-C", "--init-command"],
        coded: &["--command"],
        ..PLAIN
    },
    Language {
        names: &["node", "nodejs"],
        code: b"epi",
        valued: &[
            "-r",
            "--require",
            "--import",
            "--loader",
            "--experimental-loader",
            "-C",
            "--conditions",
            "--env-file",
        ],
        coded: &["--eval", "--print", "--interactive", "--run"],
        ..PLAIN
    },
    Language { names: &["deno", "bun"], code: b"ep", coded: &["--eval", "--print"], verbs: &["run"], ..PLAIN },
    Language {
        names: &["java"],
        valued: &[
            "-cp",
            "-classpath",
            "--class-path",
            "-p",
            "--module-path",
            "--upgrade-module-path",
            "--add-modules",
            "--add-reads",
            "--add-exports",
            "--add-opens",
            "--patch-module",
            "--limit-modules",
            "--enable-native-access",
            "--source",
        ],
        coded: &["-d", "--describe-module"],
        named: &["-jar", "-m", "--module"],
        is_whole: true,
        ..PLAIN
    },
    Language { names: &["ruby", "jruby"], code: b"e", valued: &["-I", "-r", "-C", "-E", "--encoding"], ..PLAIN },
    Language { names: &["perl"], code: b"eE", valued: &["-I"], ..PLAIN },
    Language {
        names: &["php", "php-cgi"],
        code: b"rSBREa",
        naming: b"fF",
        valued: &["-c", "-d", "-t", "-z", "--php-ini", "--define", "--zend-extension"],
        coded: &["--run", "--server", "--process-code", "--process-begin", "--process-end", "--interactive"],
        named: &["--file", "--process-file"],
        ..PLAIN
    },
    Language {
        names: &["dotnet"],
        valued: &["--depsfile", "--runtimeconfig", "--additionalprobingpath", "--fx-version", "--roll-forward"],
        verbs: &["exec"],
        is_whole: true,
        ..PLAIN
    },
    Language { names: &["lua", "luajit"], code: b"e", valued: &["-l"], ..PLAIN },
    Language { names: &["tclsh", "wish"], ..PLAIN },
    // Its arguments name its cookie too.
    Language { names: &["beam.smp", "erl"], has_scripts: false, ..PLAIN },
];

/// From what was read of `/proc/N/cmdline`, which may be cut or empty, and the kernel's name of the process.
#[must_use]
pub fn called<'a>(cmdline: &'a [u8], name: &'a [u8; super::stat::NAME_BYTES]) -> Called<'a> {
    let comm = trimmed(name);
    let mut arguments = cmdline.split(|&byte| byte == 0);
    let program = program(arguments.next().unwrap_or_default(), comm);
    let program = if program.is_empty() { b"?" } else { program };
    let Some(language) = language(program) else { return Called { program, is_interpreter: false, script: None } };
    // What stands behind the last zero may be cut: it names nothing.
    let end = cmdline.iter().rposition(|&byte| byte == 0).unwrap_or(0);
    let whole = cmdline[..end].split(|&byte| byte == 0).skip(1);
    Called { program, is_interpreter: true, script: script(language, whole) }
}

/// The base name, if the kernel's name says so; else that of the first word: who writes a title over the arguments
/// begins it with the name, and goes on with what is nobody's business.
fn program<'a>(first: &'a [u8], comm: &'a [u8]) -> &'a [u8] {
    let first = first.strip_prefix(b"-").unwrap_or(first);
    let whole = base(first);
    if let Some(rest) = whole.strip_prefix(comm).filter(|_| !whole.is_empty()) {
        // The kernel's name is cut there, so that the rest of the word is the name's; a title goes on behind it.
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"=@".contains(byte);
        let end = rest.iter().position(is_end).unwrap_or(rest.len());
        if rest.is_empty() || comm.len() == super::stat::NAME_BYTES - 1 {
            let name = &whole[..comm.len() + end];
            return name.strip_suffix(b":").unwrap_or(name);
        }
    }
    let word = first.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
    let word = word.split(|&byte| byte == b'=' || byte == b'@').next().unwrap_or_default();
    let word = base(word.strip_suffix(b":").unwrap_or(word));
    if word.is_empty() { comm } else { word }
}

fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

/// `python3.11` is Python.
fn language(program: &[u8]) -> Option<&'static Language> {
    let end = program.iter().rposition(|byte| !byte.is_ascii_digit() && *byte != b'.').map_or(0, |last| last + 1);
    let bare = &program[..end];
    let is = |name: &&str| name.as_bytes() == program || name.as_bytes() == bare;
    LANGUAGES.iter().find(|language| language.names.iter().any(is))
}

fn script<'a>(language: &Language, mut arguments: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let has = |list: &[&str], argument: &[u8]| list.iter().any(|known| known.as_bytes() == argument);
    while let Some(argument) = arguments.next().filter(|_| language.has_scripts) {
        let is_option = argument.first().is_some_and(|&byte| byte == b'-' || byte == b'+');
        // A single dash is the script from standard input: what follows are its arguments.
        if has(language.coded, argument) || argument == b"-" {
            return None;
        } else if argument == b"--" || has(language.named, argument) {
            return fit(arguments.next()?);
        } else if has(language.valued, argument) {
            arguments.next()?;
        } else if !is_option && !has(language.verbs, argument) {
            return fit(argument);
        } else if let Some(cluster) = argument.strip_prefix(b"-").filter(|rest| !language.is_whole && rest[0] != b'-') {
            match in_cluster(language, cluster) {
                Cluster::Options => {}
                Cluster::Value => drop(arguments.next()?),
                Cluster::Code => return None,
                Cluster::Name(b"") => return fit(arguments.next()?),
                Cluster::Name(name) => return fit(name),
            }
        }
    }
    None
}

/// What a cluster of short options comes to.
enum Cluster<'a> {
    Options,
    /// The next argument is a value.
    Value,
    Code,
    /// What runs; empty, it is the next argument.
    Name(&'a [u8]),
}

fn in_cluster<'a>(language: &Language, cluster: &'a [u8]) -> Cluster<'a> {
    for (at, letter) in cluster.iter().enumerate() {
        let rest = &cluster[at + 1..];
        if language.code.contains(letter) {
            return Cluster::Code;
        }
        if language.naming.contains(letter) {
            return Cluster::Name(rest);
        }
        if language.valued.iter().any(|known| known.as_bytes() == [b'-', *letter]) {
            return if rest.is_empty() { Cluster::Value } else { Cluster::Options };
        }
    }
    Cluster::Options
}

/// A script's base name, when it looks like one. A number is an option's value that was not known for one.
fn fit(argument: &[u8]) -> Option<&[u8]> {
    let name = base(argument);
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-+:$".contains(byte) || !byte.is_ascii();
    let is_name = !name.is_empty() && name.iter().all(is_plain) && !name.starts_with(b"-");
    (is_name && !name.iter().all(u8::is_ascii_digit)).then_some(name)
}

#[cfg(test)]
mod tests;
