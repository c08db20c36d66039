//! Generates the tables of settings from the command's own description.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, Command};
use duet_test_docs::{linked, part, table};

use super::duet;

/// One option of one command.
struct Setting {
    /// The command, for example `party run`.
    command: String,
    option: String,
    variable: Option<String>,
    default: String,
    meaning: String,
}

impl Setting {
    fn of(command: &str, arg: &Arg) -> Option<Self> {
        let name = arg.get_long().filter(|name| !["help", "version"].contains(name))?;
        let takes_value = arg.get_action().takes_values();
        let mut option = format!("--{name}");
        for value in arg.get_value_names().filter(|_| takes_value).unwrap_or_default() {
            option = format!("{option} {value}");
        }
        if matches!(arg.get_action(), ArgAction::Append) {
            option.push_str(" …");
        }
        let variable = arg.get_env().map(|variable| code(&variable.to_string_lossy()));
        let help = arg.get_long_help().or_else(|| arg.get_help())?.to_string().replace('\n', " ");
        // Defaults that depend on other settings are part of the help.
        let (mut meaning, stated) = match help.split_once(" [default: ") {
            Some((meaning, stated)) => (meaning.to_owned(), Some(stated.trim_end_matches(']').to_owned())),
            None => (help, None),
        };
        if takes_value {
            let values = arg.get_possible_values();
            let values: Vec<String> = values.iter().map(|value| code(value.get_name())).collect();
            if !values.is_empty() {
                meaning = format!("{meaning}: {}", values.join(", "));
            }
        }
        let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
        let default = match defaults.filter(|value| !value.is_empty()).collect::<Vec<_>>().join(",") {
            _ if !takes_value => "off".to_owned(),
            value if !value.is_empty() => code(&value),
            _ if arg.is_required_set() => "required".to_owned(),
            _ => stated.map_or_else(|| "–".to_owned(), |stated| coded(&stated)),
        };
        if arg.get_value_delimiter() == Some(',') {
            meaning.push_str("; commas separate several");
        }
        let meaning = linked(&coded(&meaning));
        Some(Self { command: command.to_owned(), option: code(&option), variable, default, meaning })
    }

    /// What two commands have to share for an option to be the same one.
    fn key(&self) -> [&str; 3] {
        [&self.option, self.variable.as_deref().unwrap_or_default(), &self.meaning]
    }

    fn row(&self) -> [String; 4] {
        let variable = self.variable.clone().unwrap_or_else(|| "–".to_owned());
        [self.option.clone(), variable, self.default.clone(), self.meaning.clone()]
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// `text` with options, variables, paths and addresses as code.
fn coded(text: &str) -> String {
    let is_code = |name: &str| {
        let starts = ["--", "DUET_", "DIR/", "$", "~"];
        starts.iter().any(|start| name.starts_with(start)) || name.contains("://")
    };
    let word = |word: &str| {
        let name = word.trim_matches(['(', ')', ',', ';', '.', ':']);
        if is_code(name) { word.replace(name, &code(name)) } else { word.to_owned() }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The options of `command` and of all commands below it.
fn collect(path: &str, command: &Command, settings: &mut Vec<Setting>) {
    let own = command.get_arguments().filter(|arg| !arg.is_hide_set());
    if command.get_subcommands().next().is_none() {
        settings.extend(own.filter_map(|arg| Setting::of(path, arg)));
    }
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        let path = format!("{path} {}", below.get_name());
        collect(path.trim_start(), below, settings);
    }
}

const HEADING: [&str; 4] = ["option", "variable", "default", "meaning"];

/// Every option, and the number of commands that have it.
fn settings() -> (Vec<Setting>, BTreeMap<[String; 3], usize>) {
    let mut settings = Vec::new();
    collect("", &duet(), &mut settings);
    let mut shared = BTreeMap::new();
    for setting in &settings {
        *shared.entry(setting.key().map(str::to_owned)).or_default() += 1;
    }
    (settings, shared)
}

#[test]
fn the_tables_of_settings_are_those_of_the_command() {
    const PAGE: &str = "docs/settings.md";
    let (settings, shared) = settings();
    let is_common =
        |setting: &Setting| setting.variable.is_some() && shared[&setting.key().map(str::to_owned)] > 1;

    let mut known = Vec::new();
    let common = settings.iter().filter(|setting| is_common(setting)).filter(|setting| {
        let is_new = !known.contains(&setting.key());
        known.push(setting.key());
        is_new
    });
    part(PAGE, "common", &table(HEADING, common.map(Setting::row))).unwrap();

    let of = |command: &str| {
        let own = settings.iter().filter(|setting| setting.command == command && !is_common(setting));
        table(HEADING, own.map(Setting::row))
    };
    for command in ["orchestrator", "party run", "gateway"] {
        part(PAGE, command, &of(command)).unwrap();
    }
    part("docs/cli.md", "load run", &of("load run")).unwrap();

    let with_command = |setting: &Setting| {
        let [option, variable, default, meaning] = setting.row();
        [code(&setting.command), option, variable, default, meaning]
    };
    let heading = ["command", HEADING[0], HEADING[1], HEADING[2], HEADING[3]];
    let others = |of: fn(&Setting) -> bool| {
        let others = settings.iter().filter(|setting| !is_common(setting) && of(setting));
        table(heading, others.map(with_command))
    };
    let party = others(|setting| setting.command.starts_with("party ") && setting.command != "party run");
    part(PAGE, "party", &party).unwrap();
    let variables = others(|setting| {
        let is_server = ["orchestrator", "gateway"].contains(&&*setting.command);
        setting.variable.is_some() && !is_server && !setting.command.starts_with("party ")
    });
    part(PAGE, "others", &variables).unwrap();
}
