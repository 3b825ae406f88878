//! Owns the task `book`: the documents as HTML, with the files that they point to, and no link that leads nowhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::workspace;

/// Where the book is built, as book.toml says.
const BOOK: &str = "target/book";
/// Where in the book the files of the repository are that its pages point to.
const FILES: &str = "repository";

/// Builds the book and follows its links.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    workspace::run(workspace::command("mdbook").arg("build"))?;
    let book = workspace::root().join(BOOK);
    let pages = pages(&book)?;
    for page in &pages {
        let text = fs::read_to_string(page)?;
        let (text, files) = with_files_inside(&text, workspace::root());
        for file in files {
            let to = book.join(FILES).join(&file);
            fs::create_dir_all(to.parent().context("a file has a folder")?)?;
            let from = workspace::root().join(&file);
            fs::copy(&from, to).with_context(|| format!("{}: link to a file", from.display()))?;
        }
        fs::write(page, text)?;
    }
    let mut followed = 0;
    let mut dead = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page)?;
        for link in links(&text) {
            followed += 1;
            if !leads_somewhere(&book, page, &text, link) {
                dead.push(format!("{}: {link}", page.file_name().unwrap_or_default().display()));
            }
        }
    }
    if !dead.is_empty() {
        bail!("links that lead nowhere:\n{}", dead.join("\n"));
    }
    println!("{BOOK}: {} pages, {followed} links followed", pages.len());
    Ok(ExitCode::SUCCESS)
}

fn pages(book: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(book).with_context(|| book.display().to_string())? {
        let path = entry?.path();
        // What a server shows instead of a page that is not there has no place of its own.
        if path.extension().is_some_and(|end| end == "html") && !path.ends_with("404.html") {
            pages.push(path);
        }
    }
    Ok(pages)
}

/// A page whose links out of the book lead to files in it, and these files, from the root of the repository.
fn with_files_inside(page: &str, root: &Path) -> (String, BTreeSet<String>) {
    let mut files = BTreeSet::new();
    let mut pieces = page.split("href=\"../");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (link, rest) = piece.split_once('"').unwrap_or((piece, ""));
        let (path, anchor) = link.split_once('#').map_or((link, ""), |(path, anchor)| (path, anchor));
        // mdBook takes every page of Markdown for one of its own.
        let page = path.strip_suffix(".html").map(|stem| format!("{stem}.md"));
        let file = page.filter(|page| root.join(page).is_file()).unwrap_or_else(|| path.to_owned());
        let mark = if anchor.is_empty() { "" } else { "#" };
        text.push_str(&format!("href=\"{FILES}/{file}{mark}{anchor}\"{rest}"));
        files.insert(file);
    }
    (text, files)
}

/// The links of a page that stay in the book.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = ["href=\"", "src=\""].into_iter().flat_map(|word| page.split(word).skip(1));
    targets.filter_map(|rest| rest.split('"').next()).filter(|link| !link.contains(':') && !link.is_empty())
}

fn leads_somewhere(book: &Path, page: &Path, text: &str, link: &str) -> bool {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { page.to_owned() } else { book.join(path) };
    let has = |text: &str| text.contains(&format!("id=\"{anchor}\""));
    let is_page = target.extension().is_some_and(|end| end == "html");
    if anchor.is_empty() || !is_page {
        return target.is_file();
    }
    if target == page { has(text) } else { fs::read_to_string(target).is_ok_and(|text| has(&text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_is_brought_into_the_book() {
        let page = r##"<a href="A.html">a</a> <a href="../README.html#top">r</a> <a href="../deny.toml">d</a>"##;
        let (text, files) = with_files_inside(page, workspace::root());
        let wanted =
            r##"<a href="A.html">a</a> <a href="repository/README.md#top">r</a> <a href="repository/deny.toml">d</a>"##;
        assert_eq!(text, wanted);
        assert_eq!(files, BTreeSet::from(["README.md".to_owned(), "deny.toml".to_owned()]));
    }

    #[test]
    fn a_link_to_no_page_or_no_heading_is_dead() {
        let folder = workspace::target().join(format!("book-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let page = folder.join("a.html");
        let text =
            r##"<h1 id="top">a</h1> <img src="b.png"> <a href="https://example.com/">e</a> <a href="#top">t</a>"##;
        fs::write(&page, text).unwrap();
        assert_eq!(links(text).collect::<Vec<_>>(), ["#top", "b.png"]);
        let leads = |link: &str| leads_somewhere(&folder, &page, text, link);
        assert!(leads("a.html") && leads("#top") && leads("a.html#top"));
        assert!(!leads("b.png") && !leads("#bottom") && !leads("a.html#bottom"));
        fs::remove_dir_all(folder).unwrap();
    }
}
