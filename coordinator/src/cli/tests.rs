use clap::{Arg, Command, CommandFactory, Parser};

use super::Cli;

fn walk(command: &Command, check: &mut impl FnMut(&Command, &Arg)) {
    for arg in command.get_arguments() {
        check(command, arg);
    }
    for sub in command.get_subcommands() {
        walk(sub, check);
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_flag_has_an_environment_variable_and_every_verb_says_what_it_does() {
    walk(&Cli::command(), &mut |command, arg| {
        let (command, id) = (command.get_name(), arg.get_id().as_str());
        if arg.get_long().is_some() && !["help", "version"].contains(&id) {
            let env = arg.get_env().map(|env| env.to_string_lossy().into_owned()).unwrap_or_default();
            assert!(env.starts_with("BATON_"), "--{id} of {command} has no environment variable");
            assert!(arg.get_help().is_some(), "--{id} of {command} is not explained");
        }
    });
    fn explained(command: &Command) {
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{} is not explained", sub.get_name());
            explained(sub);
        }
    }
    explained(&Cli::command());
}

#[test]
fn what_the_documentation_shows_is_understood() {
    for line in [
        "baton topic create orders --partitions 12 --replication 3 --config retention.ms=1000 --config x=y",
        "baton topic list --output json",
        "baton topic alter orders --unset retention.ms --partitions 24 --accept-moved-keys",
        "baton topic delete orders --bootstrap a:1,b:2",
        "baton produce orders --key-delimiter : --compression zstd --linger 20ms --header a=b",
        "baton consume orders --from start --count 5",
        "baton consume orders --from -10m --exit-at-end --partition 0,3",
        "baton consume orders --from 2026-01-31T12:00:00Z --format {key}={value}",
        "baton partition list orders",
        "baton partition reassign orders 0 --replicas 1,2,3",
        "baton partition reassign orders 0 --cancel",
        "baton partition elect orders 0 --unclean 2 --accept-data-loss",
        "baton cluster status",
        "baton events --follow",
        "baton config print --config broker.toml --set broker_id=1",
    ] {
        if let Err(error) = Cli::try_parse_from(line.split(' ')) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    for line in [
        "baton",
        "baton topic",
        "baton topic create",
        "baton topic create t --partitions many",
        "baton topic create t --config nothing",
        "baton consume t --from somewhere",
        "baton consume t --format {nothing}",
        "baton produce t --compression rar",
        "baton produce t --linger soon",
        "baton partition reassign t 0",
        "baton partition reassign t 0 --replicas 1 --cancel",
        "baton partition elect t 0 --accept-data-loss",
        "baton events --from -5",
    ] {
        let error = Cli::try_parse_from(line.split(' ')).err();
        assert_eq!(error.map(|error| error.exit_code()), Some(2), "{line}");
    }
}
