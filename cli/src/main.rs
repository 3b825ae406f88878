//! The process: reads the arguments, does what they ask, and says how it went by its exit code.

mod arguments;
mod completion;
mod confirm;
mod conformance;
mod dashboard;
mod doctor;
mod error;
mod explain;
mod freeze;
mod kubernetes;
mod logs;
mod owner;
mod pods;
mod proxy;
mod show;
mod stream;
mod validate;
mod values;
mod verb;
mod wait;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use arguments::{Cli, Command};
use error::Error;
use kubernetes::Kubernetes;

fn main() -> ExitCode {
    // Asked for by the shell, through the script that `completion` prints.
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let cli = Cli::parse();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => match runtime.block_on(run(cli)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                error.code()
            }
        },
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Error> {
    let cluster = || Kubernetes::connect(&cli.place);
    match &cli.command {
        Command::Status(task) => wait::status(&cluster().await?, task).await,
        Command::ExplainState(task) => {
            let runtime = cluster().await?.get(&task.name).await?;
            print!("{}", explain::text(&runtime));
            Ok(())
        }
        Command::Pause(task) => verb::run(&cluster().await?, verb::Verb::Pause, task).await,
        Command::Resume(task) => verb::run(&cluster().await?, verb::Verb::Resume, task).await,
        Command::Stop(task) => verb::run(&cluster().await?, verb::Verb::Stop, task).await,
        Command::Start(task) => verb::run(&cluster().await?, verb::Verb::Start, task).await,
        Command::Restart(task) => verb::run(&cluster().await?, verb::Verb::Restart, task).await,
        Command::Freeze(task) => freeze::freeze(&cluster().await?, task).await,
        Command::Unfreeze(task) => freeze::unfreeze(&cluster().await?, task).await,
        Command::Logs(task) => logs::run(&cluster().await?, task).await,
        Command::Validate(task) => validate::run(&cli.place, task).await,
        Command::Conformance(task) => conformance::run(task).await,
        Command::Trigger(task) => pods::trigger(&cluster().await?, task).await,
        Command::Executions(task) => pods::executions(&cluster().await?, task).await,
        Command::Dashboard(task) => dashboard::run(cluster().await?, task).await,
        Command::Doctor => doctor::run(&cluster().await?).await,
        Command::Completion { shell } => {
            println!("{}", completion::script(*shell));
            Ok(())
        }
    }
}
