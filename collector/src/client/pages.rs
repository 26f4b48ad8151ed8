//! The manual pages and shell completions of a program, made of what it knows of its own command line.
//!
//! They are written when packages are built, so that they never say anything else than `--help` does.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;

/// Nobody but who builds packages asks for it.
pub const NAME: &str = "pages";

#[must_use]
pub fn command() -> Command {
    Command::new(NAME)
        .about("Write manual pages and completions of shells below a directory")
        .hide(true)
        .arg(Arg::new("dir").value_name("DIR").required(true).value_parser(clap::value_parser!(std::path::PathBuf)))
}

/// Below the directory that was given: `man1`, `bash`, `zsh` and `fish`.
pub fn write_to(program: Command, given: &ArgMatches) -> io::Result<()> {
    let dir = given.get_one::<std::path::PathBuf>("dir").map_or(Path::new("."), |dir| dir);
    let mut program = program.disable_help_subcommand(true);
    let name = program.get_name().to_owned();
    for (shell, below) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        fs::create_dir_all(dir.join(below))?;
        clap_complete::generate_to(shell, &mut program, &name, dir.join(below))?;
    }
    fs::create_dir_all(dir.join("man1"))?;
    clap_mangen::generate_to(program, dir.join("man1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_page_and_every_shell_its_completions() {
        let dir = std::env::temp_dir().join(format!("dunlin-pages-{}", std::process::id()));
        let program =
            || Command::new("dunlin-example").about("Shows").subcommand(Command::new("one")).subcommand(command());
        let given = command().get_matches_from([NAME.into(), dir.clone().into_os_string()]);
        write_to(program(), &given).expect("it is writable");
        for file in
            ["man1/dunlin-example.1", "man1/dunlin-example-one.1", "bash/dunlin-example.bash", "zsh/_dunlin-example"]
        {
            assert!(dir.join(file).is_file(), "{file}");
        }
        let page = fs::read_to_string(dir.join("man1/dunlin-example.1")).expect("it was written");
        assert!(page.contains("Shows") && !page.contains(NAME), "what is hidden stays so: {page}");
        fs::remove_dir_all(&dir).expect("it is ours");
    }
}
