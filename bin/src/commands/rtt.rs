//! `rtt`

use clap::Args;
use proconsul_core::coordinate::{Coordinate, DIMENSIONS};
use serde_json::Value;

use crate::cli::{Failure, OrFail as _, Run, Terminal, fail};
use crate::client::{Client, HttpOptions};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    http: HttpOptions,
    /// Between servers of any datacenters, named NODE.DATACENTER.
    #[arg(long)]
    wan: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for Options {
    /// Prints how long the way from one node to another and back is believed to take.
    fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let (first, second) = match self.args.as_slice() {
            [first] => (first, None),
            [first, second] => (first, Some(second)),
            _ => return fail("One or two node names must be specified"),
        };
        let well_named = |name: &String| !self.wan || split(name).is_some();
        if !well_named(first) || !second.is_none_or(well_named) {
            return fail("Node names must be specified as <node name>.<datacenter> with -wan");
        }
        let client = Client::new(&self.http, terminal).or_fail("Error connecting to Consul agent")?;
        let second = match second {
            Some(second) => second.clone(),
            None => {
                let this = client.get_json("/v1/agent/self", &[]).or_fail("Unable to look up agent info")?;
                own_name(&this, self.wan)
            }
        };
        let (path, source) =
            if self.wan { ("/v1/coordinate/datacenters", "WAN") } else { ("/v1/coordinate/nodes", "LAN") };
        let known = client.get_json(path, &[]).or_fail("Error getting coordinates")?;
        let find = |name: &str| if self.wan { in_datacenters(&known, name) } else { on_node(&known, name) };
        let mut found = Vec::new();
        for name in [first.as_str(), second.as_str()] {
            match find(name) {
                Some(coordinate) => found.push(coordinate),
                None => return fail(format!("Could not find a coordinate for node {name:?}")),
            }
        }
        let millis = found[0].distance_to(&found[1]).as_secs_f64() * 1_000.0;
        terminal
            .say(format!("Estimated {first} <-> {second} rtt: {millis:.3} ms (using {source} coordinates)"));
        Ok(())
    }
}

/// A name among all datacenters as the node's and the datacenter's.
fn split(name: &str) -> Option<(&str, &str)> {
    name.split_once('.').filter(|(_, datacenter)| !datacenter.contains('.'))
}

/// The agent's own name.
fn own_name(this: &Value, wan: bool) -> String {
    let text = |name: &str| this["Config"][name].as_str().unwrap_or_default();
    if wan { format!("{}.{}", text("NodeName"), text("Datacenter")) } else { text("NodeName").to_owned() }
}

fn in_datacenters(datacenters: &Value, name: &str) -> Option<Coordinate> {
    let (node, datacenter) = split(name)?;
    let areas = datacenters.as_array()?.iter();
    areas
        .filter(|area| area["Datacenter"] == datacenter && area["AreaID"] == "wan")
        .find_map(|area| on_node(&area["Coordinates"], node))
}

fn on_node(nodes: &Value, name: &str) -> Option<Coordinate> {
    let row = nodes.as_array()?.iter().find(|row| row["Node"] == name)?;
    let coordinate = &row["Coord"];
    let components: Option<Vec<f64>> = coordinate["Vec"].as_array()?.iter().map(Value::as_f64).collect();
    let vec: [f64; DIMENSIONS] = components?.try_into().ok()?;
    let number = |name: &str| coordinate[name].as_f64();
    Some(Coordinate {
        vec,
        error: number("Error")?,
        adjustment: number("Adjustment")?,
        height: number("Height")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_coordinate_is_found_by_the_name_of_its_node() {
        let at =
            |x: f64| json!({"Vec": [x, 0, 0, 0, 0, 0, 0, 0], "Error": 1.5, "Adjustment": 0, "Height": 1e-5});
        let nodes = json!([
            {"Node": "a", "Segment": "", "Coord": at(0.1)},
            {"Node": "b", "Segment": "", "Coord": at(0.3)},
            {"Node": "odd", "Segment": "", "Coord": {"Vec": [1]}},
        ]);
        let (a, b) = (on_node(&nodes, "a").unwrap(), on_node(&nodes, "b").unwrap());
        assert_eq!(a.distance_to(&b).as_micros(), 200_020);
        assert_eq!((on_node(&nodes, "odd"), on_node(&nodes, "none")), (None, None));
        let datacenters = json!([
            {"Datacenter": "dc1", "AreaID": "wan", "Coordinates": nodes},
            {"Datacenter": "dc2", "AreaID": "wan", "Coordinates": []},
        ]);
        assert_eq!(in_datacenters(&datacenters, "b.dc1"), Some(b));
        assert_eq!(in_datacenters(&datacenters, "b.dc2"), None);
    }

    #[test]
    fn a_name_among_datacenters_has_one_dot() {
        assert_eq!(split("a.dc1"), Some(("a", "dc1")));
        assert_eq!((split("a"), split("a.b.dc1")), (None, None));
    }
}
