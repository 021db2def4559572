//! `retrocap completions` and `retrocap man`: shell completions and manual pages, generated from the clap definition.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command, ValueEnum};
use clap_complete::aot::{self, Shell};

use crate::options::Common;
use crate::terminal::printable::{note, print_own};

/// Print completions of the command line for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  retrocap completions bash > ~/.local/share/bash-completion/completions/retrocap    bash, for you
  retrocap completions zsh > /usr/local/share/zsh/site-functions/_retrocap           zsh, for everybody
  retrocap completions fish > ~/.config/fish/completions/retrocap.fish               fish, for you")]
pub(crate) struct Completions {
    /// Shell to complete in
    #[arg(value_name = "SHELL")]
    shell: KnownShell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KnownShell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    /// Prints the completion script.
    pub(crate) fn run(&self, command: &mut Command) -> anyhow::Result<()> {
        let shell = match self.shell {
            KnownShell::Bash => Shell::Bash,
            KnownShell::Zsh => Shell::Zsh,
            KnownShell::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        aot::generate(shell, command, "retrocap", &mut script);
        print_own(&String::from_utf8_lossy(&script))
    }
}

/// Write the manual pages to a directory, one per command
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  retrocap man ./man && man -l ./man/retrocap-get.1      read one without installing it
  sudo retrocap man /usr/local/share/man/man1            where man looks for them
  retrocap man ~/.local/share/man/man1                   the same for you alone")]
pub(crate) struct Man {
    /// Directory to write to; it is created if it does not exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Man {
    /// Writes the pages.
    pub(crate) fn run(&self, common: &Common, command: Command) -> anyhow::Result<()> {
        let name = self.directory.display();
        let cannot = || format!("cannot write manual pages to {name}");
        std::fs::create_dir_all(&self.directory).with_context(cannot)?;
        clap_mangen::generate_to(command.disable_help_subcommand(true), &self.directory).with_context(cannot)?;
        if !common.quiet {
            note(&format!("manual pages -> {name}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use clap::{CommandFactory as _, Parser as _};

    /// Splits a line of examples into the commands that a shell would run, without the explanation after two blanks.
    fn commands(line: &str) -> Vec<Vec<String>> {
        let mut words = vec![String::new()];
        let mut commands = Vec::new();
        let (mut quote, mut blanks) = (None, 0);
        for c in line.trim_start().chars() {
            match (c, quote) {
                (_, Some(open)) if c == open => quote = None,
                (_, Some(_)) => words.last_mut().unwrap().push(c),
                ('\'' | '"', None) => quote = Some(c),
                ('|' | '>' | '&', None) => {
                    commands.push(std::mem::take(&mut words));
                    words.push(String::new());
                }
                (' ', None) => words.push(String::new()),
                (c, None) => words.last_mut().unwrap().push(c),
            }
            blanks = if c == ' ' && quote.is_none() { blanks + 1 } else { 0 };
            if blanks == 2 {
                break;
            }
        }
        assert_eq!(quote, None, "{line}");
        commands.push(words);
        for words in &mut commands {
            words.retain(|word| !word.is_empty() && word != "sudo");
        }
        commands.retain(|words| words.first().is_some_and(|word| word == "retrocap"));
        commands
    }

    /// All examples parse, so that users can paste them.
    #[test]
    fn every_verb_has_three_examples_that_parse() {
        let root = Cli::command();
        for verb in root.get_subcommands().filter(|verb| !verb.is_hide_set()).chain([&root]) {
            let name = verb.get_name();
            let help = verb.get_after_help().unwrap_or_else(|| panic!("{name} has no examples")).to_string();
            let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{name}: {help}"));
            let mut own = 0;
            for line in examples.lines().filter(|line| line.starts_with("  ")) {
                for words in commands(line) {
                    own += usize::from(verb.get_name() == "retrocap" || words.get(1).is_some_and(|word| word == name));
                    if let Err(error) = Cli::try_parse_from(&words) {
                        panic!("{name}: {line}\n{words:?}\n{error}");
                    }
                }
            }
            assert!(own >= 3, "{name} has {own} examples");
        }
    }

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }
}
