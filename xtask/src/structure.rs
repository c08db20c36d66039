//! `cargo xtask structure`: which files of a crate use each other, and which do so in a circle.
//!
//! An *arrow* leads from one file to another when its code names an item of the other. It counts
//! `use` declarations and paths inside expressions, types and `#[serde(with = "…")]`. A name that
//! a module re-exports counts as an arrow to the file that defines it, and the re-export itself is
//! an arrow as well. An imported module is an arrow only if a path goes through it. Tests
//! (`#[cfg(test)]`), method calls and what macros write do not count.
//!
//! A *circle* is a set of files that all reach each other along arrows. An arrow *runs back* if a
//! depth-first walk, which takes files by name, meets a file at the arrow's head that it has not
//! left yet. Without these arrows no circle would remain.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use self::tokens::{before, closing, import, is_name, tokens, without_tests, without_texts};

mod sessions;
mod tokens;

/// The crate whose circles are known and may stay.
const EXEMPT: &str = "orchestrator";

/// The most re-exports between a name and its definition. Names that lead in a circle end here.
const MAX_STEPS: usize = 12;

/// Prints the files, arrows and circles of every crate in the tree at `root`.
pub(crate) fn print(root: &Path) -> Result<()> {
    println!("{:<22}{:>6}{:>8}{:>9}{:>9}", "crate", "files", "arrows", "run back", "circles");
    for (name, folder) in crates(root)? {
        let graph = Graph::read(&folder)?;
        let walk = graph.walk();
        let (files, arrows) = (graph.files.len(), graph.arrows.len());
        println!("{name:<22}{files:>6}{arrows:>8}{:>9}{:>9}", walk.back.len(), walk.circles.len());
        for circle in &walk.circles {
            println!("  circle: {}", graph.names(circle));
        }
    }
    Ok(())
}

/// Fails if files of a crate other than the exempt one use each other in a circle, or if the
/// parties' session code names what a seed cannot repeat.
pub(crate) fn check(root: &Path) -> Result<()> {
    sessions::check(root)?;
    let mut found = String::new();
    for (name, folder) in crates(root)?.into_iter().filter(|(name, _)| name != EXEMPT) {
        let graph = Graph::read(&folder)?;
        for circle in graph.walk().circles {
            found += &format!("\n  {name}: {}", graph.names(&circle));
        }
    }
    if !found.is_empty() {
        bail!("files use each other in a circle (`cargo xtask structure`):{found}");
    }
    Ok(())
}

/// The crates in and one folder below `root` and `root/crates`, by their folder.
fn crates(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for (parent, prefix) in [(root.to_owned(), ""), (root.join("crates"), "crates/")] {
        let Ok(entries) = fs::read_dir(&parent) else { continue };
        for entry in entries {
            let folder = entry?.path();
            if folder.join("Cargo.toml").is_file() && folder.join("src").is_dir() {
                let name = folder.file_name().unwrap_or_default().to_string_lossy();
                found.push((format!("{prefix}{name}"), folder));
            }
        }
    }
    if found.is_empty() {
        bail!("{} holds no crate", root.display());
    }
    found.sort();
    Ok(found)
}

/// A module, which may be a file or a part of one.
#[derive(Default)]
struct Module {
    file: usize,
    parent: usize,
    children: BTreeMap<String, usize>,
    /// Names that the module declares. Methods are among them, which does no harm: they are in the
    /// same file.
    declared: BTreeSet<String>,
    /// Names that `use` brings in, with the paths behind them; `*` is a glob.
    imported: Vec<(String, Vec<String>)>,
    /// The paths in the module's code.
    paths: Vec<Vec<String>>,
}

/// What a path names.
#[derive(Clone, Copy)]
enum Target {
    Module(usize),
    /// An item, by the file that declares it.
    Item(usize),
    /// Something of another crate, or a local name.
    Outside,
}

/// The files of a crate and the arrows between them.
#[derive(Default)]
struct Graph {
    folder: PathBuf,
    files: Vec<PathBuf>,
    modules: Vec<Module>,
    arrows: BTreeSet<(usize, usize)>,
}

impl Graph {
    /// Reads the crate in `folder`: its library, its program, and the programs in `src/bin`.
    fn read(folder: &Path) -> Result<Self> {
        let source = folder.join("src");
        let mut graph = Self { folder: source.clone(), ..Self::default() };
        let mut roots = vec![source.join("lib.rs"), source.join("main.rs")];
        if let Ok(programs) = fs::read_dir(source.join("bin")) {
            roots.extend(programs.flatten().map(|entry| entry.path()));
        }
        roots.retain(|root| root.is_file());
        roots.sort();
        for root in roots {
            let first = graph.modules.len();
            graph.add_file(&root, &source, first)?;
            for module in first..graph.modules.len() {
                graph.add_arrows(first, module);
            }
        }
        Ok(graph)
    }

    /// Adds the module in the file `path`, whose children's files are in `folder`.
    fn add_file(&mut self, path: &Path, folder: &Path, parent: usize) -> Result<usize> {
        let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        self.files.push(path.to_owned());
        let module = self.modules.len();
        self.modules.push(Module { file: self.files.len() - 1, parent, ..Module::default() });
        let tokens = without_tests(&tokens(&without_texts(&text)));
        self.add_code(&tokens, module, folder)?;
        Ok(module)
    }

    /// Notes what `tokens` declare, import and name in `module`.
    fn add_code(&mut self, tokens: &[String], module: usize, folder: &Path) -> Result<()> {
        let token = |at: usize| tokens.get(at).map_or("", String::as_str);
        let mut at = 0;
        while at < tokens.len() {
            let name = token(at + 1).to_owned();
            match token(at) {
                "mod" if token(at + 2) == ";" => {
                    // A file that `#[path]` names, or that a build script writes, is not followed.
                    let path = folder.join(format!("{name}.rs"));
                    if path.is_file() {
                        let child = self.add_file(&path, &folder.join(&name), module)?;
                        self.at(module).children.insert(name, child);
                    }
                    at += 3;
                }
                "mod" if token(at + 2) == "{" => {
                    let end = closing(tokens, at + 2);
                    let (child, file) = (self.modules.len(), self.at(module).file);
                    self.modules.push(Module { file, parent: module, ..Module::default() });
                    self.at(module).children.insert(name.clone(), child);
                    let inner = tokens.get(at + 3..end).unwrap_or_default();
                    self.add_code(inner, child, &folder.join(name))?;
                    at = end;
                }
                // `use<'a>` in a type is no declaration.
                "use" if name != "<" => at = import(tokens, at + 1, &[], &mut self.at(module).imported),
                "struct" | "enum" | "trait" | "type" | "fn" | "const" | "static" | "union" => {
                    self.at(module).declared.insert(name);
                    at += 1;
                }
                first if is_name(first) && name == "::" && !matches!(before(tokens, at), "::" | ".") => {
                    let mut path = vec![first.to_owned()];
                    while token(at + 1) == "::" && is_name(token(at + 2)) {
                        path.push(token(at + 2).to_owned());
                        at += 2;
                    }
                    self.at(module).paths.push(path);
                    at += 1;
                }
                _ => at += 1,
            }
        }
        Ok(())
    }

    #[expect(clippy::indexing_slicing, reason = "the number of a module is an index of this vector")]
    fn at(&mut self, module: usize) -> &mut Module {
        &mut self.modules[module]
    }

    /// Adds the arrows of one module, whose crate's root is the module `root`.
    fn add_arrows(&mut self, root: usize, module: usize) {
        let Some(code) = self.modules.get(module) else { return };
        let imported = code.imported.iter().map(|(_, path)| path);
        for path in imported.chain(&code.paths) {
            let to = match self.resolve(root, module, path, MAX_STEPS) {
                Target::Item(to) => to,
                Target::Module(to) if path.last().is_some_and(|last| last == "*") => {
                    self.modules.get(to).map_or(code.file, |to| to.file)
                }
                Target::Module(_) | Target::Outside => continue,
            };
            if to != code.file {
                self.arrows.insert((code.file, to));
            }
        }
    }

    /// What `path` means inside `module`.
    fn resolve(&self, root: usize, module: usize, path: &[String], steps: usize) -> Target {
        let mut current = module;
        for (position, name) in path.iter().enumerate() {
            let Some(here) = self.modules.get(current) else { return Target::Outside };
            let is_last = position + 1 == path.len();
            current = match name.as_str() {
                "crate" => root,
                "self" | "*" => current,
                "super" => here.parent,
                name => match self.find(root, current, name, is_last, steps) {
                    Some(Target::Module(module)) => module,
                    Some(found) => return found,
                    None if position == 0 => return Target::Outside,
                    // A macro writes the item, or it is a macro.
                    None => return Target::Item(here.file),
                },
            };
        }
        Target::Module(current)
    }

    /// What `name` means in `module`. A name may mean both a module and an item: the last name of
    /// a path is the item, and any other name the module.
    fn find(&self, root: usize, module: usize, name: &str, is_last: bool, steps: usize) -> Option<Target> {
        let here = self.modules.get(module)?;
        let steps = steps.checked_sub(1)?;
        let child = here.children.get(name).map(|child| Target::Module(*child));
        let imported = || {
            let mut paths = here.imported.iter().filter(|(visible, _)| visible == name);
            paths.next().map(|(_, path)| self.resolve(root, module, path, steps))
        };
        let declared = || here.declared.contains(name).then_some(Target::Item(here.file));
        let globs = || {
            here.imported.iter().filter(|(visible, _)| visible == "*").find_map(|(_, path)| {
                match self.resolve(root, module, path, steps) {
                    Target::Module(from) => self.find(root, from, name, is_last, steps),
                    Target::Item(_) | Target::Outside => None,
                }
            })
        };
        let modules = if is_last { None } else { child };
        modules.or_else(imported).or_else(declared).or(child).or_else(globs)
    }

    fn walk(&self) -> Walk {
        let mut walk = Walk { seen: vec![None; self.files.len()], ..Walk::default() };
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        order.sort_by_key(|file| self.files.get(*file));
        for file in order.iter().copied() {
            walk.visit(self, &order, file);
        }
        walk
    }

    fn names(&self, circle: &[usize]) -> String {
        let mut names: Vec<String> = circle
            .iter()
            .filter_map(|file| self.files.get(*file))
            .map(|file| file.strip_prefix(&self.folder).unwrap_or(file).display().to_string())
            .collect();
        names.sort();
        names.join(" ")
    }
}

/// A depth-first walk over the files, by Tarjan's algorithm.
#[derive(Default)]
struct Walk {
    /// When the walk met each file.
    seen: Vec<Option<usize>>,
    met: usize,
    /// The files on the walk's way.
    way: Vec<usize>,
    /// The files that belong to no circle yet.
    open: Vec<usize>,
    back: Vec<(usize, usize)>,
    circles: Vec<Vec<usize>>,
}

impl Walk {
    /// Visits `file` and everything behind it. Returns the earliest open file that it reaches.
    fn visit(&mut self, graph: &Graph, order: &[usize], file: usize) -> usize {
        let Some(seen) = self.seen.get_mut(file).filter(|seen| seen.is_none()) else { return usize::MAX };
        self.met += 1;
        let own = *seen.insert(self.met);
        let mut earliest = own;
        self.way.push(file);
        self.open.push(file);
        for next in order.iter().copied().filter(|next| graph.arrows.contains(&(file, *next))) {
            if self.way.contains(&next) {
                self.back.push((file, next));
            }
            let reached = match self.seen.get(next).copied().flatten() {
                Some(seen) if self.open.contains(&next) => seen,
                Some(_) => continue,
                None => self.visit(graph, order, next),
            };
            earliest = earliest.min(reached);
        }
        self.way.pop();
        if earliest == own {
            let start = self.open.iter().position(|open| *open == file).unwrap_or_default();
            let circle = self.open.split_off(start);
            if circle.len() > 1 {
                self.circles.push(circle);
            }
            return usize::MAX;
        }
        earliest
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::Graph;

    /// A crate of these files, as "arrows; arrows that run back; circles".
    fn summary(files: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join("src").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let graph = Graph::read(folder.path()).unwrap();
        let name = |file: usize| graph.names(&[file]).replace(".rs", "");
        let pairs = |pairs: &mut dyn Iterator<Item = (usize, usize)>| {
            let mut pairs: Vec<String> =
                pairs.map(|(from, to)| format!("{}>{}", name(from), name(to))).collect();
            pairs.sort();
            pairs.join(" ")
        };
        let walk = graph.walk();
        let circles: Vec<String> = walk.circles.iter().map(|circle| graph.names(circle)).collect();
        let arrows = pairs(&mut graph.arrows.iter().copied());
        let back = pairs(&mut walk.back.iter().copied());
        format!("{arrows}; {back}; {}", circles.join(", "))
    }

    #[test]
    fn a_name_imported_through_the_root_is_an_arrow_to_its_definition() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use self::b::{Thing, other as renamed};"),
            ("a.rs", "use crate::{Thing, renamed};"),
            ("b.rs", "pub struct Thing; pub fn other() {}"),
        ];
        assert_eq!(summary(&files), "a>b lib>b; ; ");
    }

    #[test]
    fn two_files_that_use_each_other_are_a_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B; impl B { fn a() -> crate::a::A { loop {} } }"),
            ("c.rs", "use super::a::A;"),
        ];
        assert_eq!(summary(&files), "a>b b>a c>a; b>a; a.rs b.rs");
    }

    #[test]
    fn a_child_that_uses_what_its_parent_defines_is_a_circle() {
        let parent = "mod child; pub use child::Child; pub struct Parent;";
        let files =
            [("main.rs", "mod p;"), ("p.rs", parent), ("p/child.rs", "use super::*; struct Child(Parent);")];
        assert_eq!(summary(&files), "p/child>p p>p/child; p>p/child; p.rs p/child.rs");
    }

    #[test]
    fn paths_through_imported_modules_count_and_modules_alone_do_not() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
            ("a.rs", "use crate::{b, c}; fn f() { b::run::<u8>(); }"),
            ("b.rs", "pub fn run() {}"),
            ("c.rs", "#[serde(with = \"crate::d\")] struct C;"),
            ("d.rs", "mod inner { use super::super::e; fn f() -> e::E {} }"),
            ("e.rs", "items!{E}"),
        ];
        assert_eq!(summary(&files), "a>b c>d d>e; ; ");
    }

    #[test]
    fn tests_comments_and_texts_are_left_out() {
        let code = r##"
            // use crate::b::B;
            const A: &str = "\" crate::b::B"; const C: char = '"'; const R: &str = r#"crate::b::B"#;
            fn f<'a>(_: &'a str) { outside::b::B; }
            #[cfg(test)] use crate::{b::B};
            #[cfg(all(test, unix))] mod tests { use crate::b::B; }
            #[cfg(not(test))] use crate::c::C;
        "##;
        let files = [("lib.rs", "mod a; mod b; mod c;"), ("a.rs", code), ("b.rs", ""), ("c.rs", "")];
        assert_eq!(summary(&files), "a>c; ; ");
    }

    #[test]
    fn a_tree_without_crates_is_a_mistake() {
        assert!(super::crates(Path::new("/nonexistent")).is_err());
    }
}
