use ferry_api::container::Top;
use ferry_client::{Client, Query};
use ferry_kit::table::TabWriter;

use crate::{
    commands::Call,
    failure::Result,
    flags::{Arity, Spec},
};

pub const SPEC: Spec = Spec {
    name: "top",
    aliases: "container top, top",
    synopsis: "CONTAINER [ps OPTIONS]",
    about: "Display the running processes of a container",
    arity: Arity::AtLeast(1),
    stops_at_argument: true,
    ..Spec::EMPTY
};

pub async fn run(call: Call<'_>) -> Result<u8> {
    let name = Client::escape(&call.matches.arguments[0]);
    let path = Query::new()
        .text("ps_args", &call.matches.arguments[1..].join(" "))
        .on(&format!("/containers/{name}/top"));
    let top: Top = call.client.get_json(&path).await?;
    // docker's own parameters here: a minimum of 20 and tabs for padding are replaced by spaces.
    let mut table = TabWriter::new(20, 3);
    table.row(top.titles.unwrap_or_default());
    for process in top.processes.unwrap_or_default() {
        table.row(process);
    }
    call.ui.print(&table.finish());
    Ok(0)
}
