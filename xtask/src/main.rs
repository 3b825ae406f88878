//! The project's own tasks, run as `cargo xtask`.

mod bench;
mod book;
mod build_times;
mod chart;
mod cluster;
mod coverage;
mod crd;
mod debian;
mod demo;
mod disk;
mod dist;
mod faults;
mod fuzz;
mod images;
mod mutants;
mod progress;
mod release;
mod reproduce;
mod sbom;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// A Kubernetes cluster for tests and demonstrations
    #[command(subcommand)]
    Cluster(cluster::Task),
    /// Show the product on a real cluster: apply, pause, resume, update, stop and delete an agent
    ///
    /// The cluster of a context must be able to pull the images.
    Demo(demo::Demo),
    /// Run everything that a change must pass
    Test(test::Test),
    /// Run the operator under every fault at every place, against an API server of its own
    Faults(faults::Faults),
    /// Break one rule at a time in a copy, and see that the test that guards it fails
    Mutants(mutants::Mutants),
    /// Give every parser of the runtime changed seeds, for a minute each
    Fuzz(fuzz::Fuzz),
    /// Measure the product
    #[command(subcommand)]
    Bench(bench::Task),
    /// Write the generated YAML of the custom resources
    Crd(crd::Crd),
    /// Write the plain manifests, rendered from the chart
    Dist(dist::Dist),
    /// Build the documents as a book, with mdbook, and follow its links
    Book,
    /// Write what the binaries are made of: an SBOM of each and a list of licenses, into dist/sbom
    Sbom,
    /// Pack each image twice and compare the digests; with --compile, build the binaries twice too
    Reproduce(reproduce::Reproduce),
    /// Build the images, load them into the cluster that is up and install the chart
    Install,
    /// Build the binaries that are published, with the profile of the release, into dist/release
    Release,
}

fn install() -> anyhow::Result<ExitCode> {
    let cluster = ::cluster::Cluster::attach()?;
    let images = images::load(&cluster, &images::build(images::Profile::Quick)?)?;
    chart::install(&cluster, &images)?;
    println!("installed {} with images {}", chart::RELEASE, images.tag);
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Cluster(task) => cluster::run(task),
        Task::Demo(task) => demo::run(&task),
        Task::Test(task) => test::run(&task),
        Task::Faults(task) => faults::run(&task),
        Task::Mutants(task) => mutants::run(&task),
        Task::Fuzz(task) => fuzz::run(&task),
        Task::Bench(task) => bench::run(&task),
        Task::Crd(task) => crd::run(&task),
        Task::Dist(task) => dist::run(&task),
        Task::Book => book::run(),
        Task::Sbom => sbom::run(),
        Task::Reproduce(task) => reproduce::run(&task),
        Task::Install => install(),
        Task::Release => release::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
