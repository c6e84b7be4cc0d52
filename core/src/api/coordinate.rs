//! `/v1/coordinate`: where nodes are in the space of round-trip times.

use std::collections::BTreeMap;

use serde_json::Value;

use super::catalog::{Bad, object};
use super::cluster::{ClusterCall, answer_everywhere};
use super::render::{json::Json, node_coordinate};
use super::route::{Context, Handled};
use super::{Call, HttpReply};
use crate::Text;
use crate::agent::decode::Object;
use crate::coordinate::{Coordinate, DIMENSIONS};
use crate::gossip::tag;
use crate::node::Published;
use crate::store::query::Query;

pub(super) fn datacenters(context: &Context<'_>) -> Handled {
    enabled(context)?;
    answer_everywhere(context, ClusterCall::CoordinateDatacenters)
}

pub(super) fn nodes(context: &Context<'_>) -> Handled {
    read(context, Query::Coordinates)
}

pub(super) fn node(context: &Context<'_>) -> Handled {
    read(context, Query::NodeCoordinates(context.name("Missing node name")?))
}

fn read(context: &Context<'_>, query: Query) -> Handled {
    enabled(context)?;
    check_segment(context.params.get("segment").unwrap_or(""))?;
    context.read(context.params.read(query, context.about())?)
}

pub(super) fn update(context: &Context<'_>) -> Handled {
    enabled(context)?;
    context.params.check_datacenter()?;
    let update = Update::read(&context.request.body)?;
    check_segment(&update.segment)?;
    let Update { node, coordinate, datacenter, .. } = update;
    let datacenter = if datacenter.is_empty() { context.datacenter() } else { &datacenter };
    context.ask_in(datacenter, Call::Cluster(ClusterCall::Coordinate { node, coordinate }))
}

/// Refuses everything where `disable_coordinates` is set.
fn enabled(context: &Context<'_>) -> Result<(), HttpReply> {
    if context.about().disable_coordinates {
        return Err(HttpReply::text(401, "Coordinate support disabled"));
    }
    Ok(())
}

/// A datacenter is one segment, which has no name.
fn check_segment(segment: &str) -> Result<(), HttpReply> {
    if segment.is_empty() {
        Ok(())
    } else {
        Err(HttpReply::text(400, "Network segments are not supported in this version of Consul"))
    }
}

/// What an agent says of itself.
#[derive(Debug, PartialEq)]
struct Update {
    node: Text,
    segment: Text,
    datacenter: Text,
    coordinate: Coordinate,
}

impl Update {
    fn read(body: &[u8]) -> Result<Update, HttpReply> {
        Update::of(object(body)?).map_err(HttpReply::from)
    }

    fn of(mut body: Object) -> Result<Update, Bad> {
        let node = body.text("node")?;
        let segment = body.text("segment")?;
        let datacenter = body.text("datacenter")?;
        let coordinate = body.object("coord")?.map(coordinate).transpose()?;
        for ignored in ["token", "write_request", "enterprise_meta", "partition"] {
            body.take(ignored);
        }
        body.finish()?;
        let missing = |what: &str| Bad::Reply(HttpReply::text(400, format!("Missing {what}")));
        if node.is_empty() {
            return Err(missing("node name"));
        }
        let coordinate = coordinate.ok_or_else(|| missing("coordinate"))?;
        Ok(Update { node, segment, datacenter, coordinate })
    }
}

/// Numbers that are not there are zero. JSON has none that are not finite.
fn coordinate(mut body: Object) -> Result<Coordinate, Bad> {
    let failed = |path: String, what: &str| {
        Bad::Reply(HttpReply::text(400, format!("Request decode failed: '{path}' expected {what}")))
    };
    let mut number = |key: &str| match body.take(key) {
        None => Ok(0.0),
        Some(value) => value.as_f64().ok_or_else(|| failed(body.path_of(key), "a number")),
    };
    let (error, adjustment, height) = (number("error")?, number("adjustment")?, number("height")?);
    let components: Option<Vec<f64>> = match body.take("vec") {
        None => Some(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(Value::as_f64).collect(),
        Some(_) => None,
    };
    let components = components.ok_or_else(|| failed(body.path_of("vec"), "a list of numbers"))?;
    body.finish()?;
    let vec: [f64; DIMENSIONS] =
        components.try_into().map_err(|_| Bad::Reply(HttpReply::text(500, "incompatible coordinate")))?;
    Ok(Coordinate { vec, error, adjustment, height })
}

/// The servers of each datacenter, with their coordinates among all datacenters. Each is named as in its own one.
pub(super) fn render_datacenters(published: &Published) -> HttpReply {
    let (about, cluster) = (&published.about, &published.cluster);
    let mut areas: BTreeMap<&str, BTreeMap<&str, Coordinate>> = BTreeMap::new();
    // Until the first measurement a server is at the origin.
    areas.entry(&about.datacenter).or_default().insert(&about.node, Coordinate::default());
    for member in cluster.wan.values() {
        let datacenter = member.tag(tag::DATACENTER);
        let node = member.name.strip_suffix(datacenter).and_then(|name| name.strip_suffix('.'));
        let area = areas.entry(datacenter).or_default();
        if let (Some(node), Some(coordinate)) = (node, cluster.wan_coordinates.get(&member.name)) {
            area.insert(node, coordinate.clone());
        }
    }
    let mut json = Json::with_capacity(400);
    json.open(b'[');
    for (datacenter, servers) in areas {
        json.next();
        json.open(b'{');
        json.key("Datacenter");
        json.string(datacenter);
        json.key("AreaID");
        json.string("wan");
        json.key("Coordinates");
        json.open(b'[');
        for (node, coordinate) in servers {
            json.next();
            node_coordinate(&mut json, node, &coordinate);
        }
        json.close(b']');
        json.close(b'}');
    }
    json.close(b']');
    HttpReply::json(200, json.into_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::Routed;
    use crate::api::api_test::{World, text};
    use crate::gossip::{Member, Status};
    use crate::node::{About, Cluster};
    use crate::store::command::Command;

    const GOOD: &str = r#"{"Vec":[0.1,0,0,0,0,0,0,-2],"Error":1.5,"Adjustment":0,"Height":1e-05}"#;

    fn refused(body: &str) -> (u16, String) {
        let reply = Update::read(body.as_bytes()).expect_err(body);
        (reply.status, String::from_utf8(reply.body.to_vec()).unwrap())
    }

    #[test]
    fn an_update_is_read_and_numbers_that_are_not_there_are_zero() {
        let update =
            Update::read(format!(r#"{{"Node":"n1","Segment":"","Coord":{GOOD}}}"#).as_bytes()).unwrap();
        assert_eq!((update.node.as_str(), update.coordinate.height), ("n1", 1e-5));
        assert_eq!(update.coordinate.vec, [0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -2.0]);
        let update = Update::read(br#"{"node":"n1","coord":{"vec":[0,0,0,0,0,0,0,0]}}"#).unwrap();
        assert_eq!((update.coordinate.error, update.coordinate.height), (0.0, 0.0));
    }

    #[test]
    fn what_cannot_be_a_coordinate_is_refused() {
        assert_eq!(
            refused(r#"{"Node":"n1","Coord":{"Vec":[0.1]}}"#),
            (500, "incompatible coordinate".to_owned())
        );
        assert_eq!(refused(r#"{"Node":"n1"}"#), (400, "Missing coordinate".to_owned()));
        assert_eq!(refused(&format!(r#"{{"Coord":{GOOD}}}"#)), (400, "Missing node name".to_owned()));
        for body in [
            "",
            "{",
            "[]",
            r#"{"Node":5}"#,
            r#"{"Frob":5}"#,
            r#"{"Node":"n1","Coord":{"Vec":[0,0,0,0,0,0,0,0],"Frob":1}}"#,
            r#"{"Node":"n1","Coord":{"Vec":[1e999,0,0,0,0,0,0,0]}}"#,
            r#"{"Node":"n1","Coord":{"Vec":["0",0,0,0,0,0,0,0]}}"#,
            r#"{"Node":"n1","Coord":{"Vec":5}}"#,
            r#"{"Node":"n1","Coord":{"Vec":[0,0,0,0,0,0,0,0],"Height":"high"}}"#,
        ] {
            let (status, text) = refused(body);
            assert!(status == 400 && text.starts_with("Request decode failed: "), "{body}: {status} {text}");
        }
    }

    fn located() -> World {
        let mut world = World::new();
        for (node, port) in [("far", 1), ("near", 2), ("nowhere", 3)] {
            let body = format!(
                r#"{{"Node":"{node}","Address":"10.0.0.1","Service":{{"Service":"web","Port":{port}}}}}"#
            );
            assert_eq!(world.put("/v1/catalog/register", &body).status, 200);
        }
        let at = |height: f64| Coordinate { height, ..Coordinate::default() };
        let command = Command::Coordinates(vec![("far".into(), at(0.25)), ("near".into(), at(0.0))]);
        world.published.view.apply(9, &command);
        world
    }

    #[test]
    fn coordinates_are_shown_as_consul_shows_them() {
        let world = located();
        let reply = world.get("/v1/coordinate/node/FAR");
        assert_eq!(
            text(&reply),
            r#"[{"Node":"far","Segment":"","Coord":{"Vec":[0,0,0,0,0,0,0,0],"Error":1.5,"Adjustment":0,"Height":0.25}}]"#
        );
        assert_eq!(reply.meta.map(|meta| meta.index), Some(9));
        assert_eq!(world.json("/v1/coordinate/nodes").as_array().map(Vec::len), Some(2));
        assert_eq!(world.json("/v1/coordinate/nodes?filter=Node==near")[0]["Node"], "near");
        let missing = world.get("/v1/coordinate/node/nowhere");
        assert_eq!((missing.status, missing.body.len()), (404, 0));
        let areas = world.json("/v1/coordinate/datacenters");
        assert_eq!((&areas[0]["Datacenter"], &areas[0]["AreaID"]), (&"dc1".into(), &"wan".into()));
        assert_eq!(areas[0]["Coordinates"][0]["Node"], "conf-node");
        assert_eq!(world.get("/v1/coordinate/nodes?segment=a").status, 400);
    }

    #[test]
    fn servers_are_listed_by_datacenter_as_far_as_it_is_known_where_they_are() {
        let mut world = World::new();
        let mut cluster = Cluster::default();
        for (name, datacenter, height) in
            [("conf-node.dc1", "dc1", Some(0.25)), ("b.dc1", "dc1", None), ("c.d.dc2", "dc2", Some(0.5))]
        {
            let member = Member {
                name: name.into(),
                address: "10.0.0.1:8302".parse().unwrap(),
                tags: Arc::new([(tag::DATACENTER.into(), datacenter.into())].into()),
                status: Status::Alive,
            };
            cluster.wan.insert(name.into(), member);
            if let Some(height) = height {
                let coordinate = Coordinate { height, ..Coordinate::default() };
                cluster.wan_coordinates.insert(name.into(), coordinate);
            }
        }
        world.published.cluster = cluster.into();
        let areas = world.json("/v1/coordinate/datacenters");
        let listed: Vec<(String, String, f64)> = areas
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|area| area["Coordinates"].as_array().unwrap().iter().map(move |row| (area, row)))
            .map(|(area, row)| {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                (text(&area["Datacenter"]), text(&row["Node"]), row["Coord"]["Height"].as_f64().unwrap())
            })
            .collect();
        let expected = [("dc1", "conf-node", 0.25), ("dc2", "c.d", 0.5)];
        assert_eq!(listed, expected.map(|(dc, node, height)| (dc.to_owned(), node.to_owned(), height)));
    }

    #[test]
    fn rows_can_be_asked_for_by_their_distance() {
        let mut world = located();
        let nodes = |world: &World, target: &str| -> Vec<String> {
            let rows = world.json(target);
            let rows = rows.as_array().expect("a list").iter();
            rows.map(|row| row["Node"].as_str().or(row["Node"]["Node"].as_str()).unwrap().to_owned())
                .collect()
        };
        for path in ["/v1/catalog/nodes", "/v1/catalog/service/web", "/v1/health/service/web"] {
            assert_eq!(nodes(&world, path), ["far", "near", "nowhere"], "{path}");
            let near = |node: &str| format!("{path}?near={node}");
            assert_eq!(nodes(&world, &near("near")), ["near", "far", "nowhere"], "{path}");
            assert_eq!(nodes(&world, &near("_agent")), ["far", "near", "nowhere"], "{path}");
        }
        let about = About { node: "near".into(), ..(*world.published.about).clone() };
        world.published.about = about.into();
        assert_eq!(nodes(&world, "/v1/catalog/nodes?near=_agent")[0], "near");
        assert_eq!(nodes(&world, "/v1/catalog/nodes?near=near&filter=Node!=near"), ["far", "nowhere"]);
    }

    #[test]
    fn an_update_is_for_the_leader() {
        let world = World::new();
        let body = format!(r#"{{"Node":"n1","Coord":{GOOD}}}"#);
        let Routed::Call { request, .. } = world.route("PUT", "/v1/coordinate/update", &body) else {
            panic!("it enters the node")
        };
        let Call::Cluster(ClusterCall::Coordinate { node, .. }) = request.call else { panic!("{request:?}") };
        assert_eq!(node, "n1");
        let reply = world.reply("PUT", "/v1/coordinate/update?dc=other", &body);
        assert_eq!((reply.status, text(&reply)), (500, "No path to datacenter"));
    }

    #[test]
    fn nobody_is_told_where_coordinates_are_switched_off() {
        let mut world = World::new();
        let about = About { disable_coordinates: true, ..(*world.published.about).clone() };
        world.published.about = about.into();
        for (method, target) in [
            ("GET", "/v1/coordinate/datacenters"),
            ("GET", "/v1/coordinate/nodes"),
            ("GET", "/v1/coordinate/node/a"),
            ("PUT", "/v1/coordinate/update"),
        ] {
            let reply = world.reply(method, target, "");
            assert_eq!((reply.status, text(&reply)), (401, "Coordinate support disabled"), "{target}");
        }
    }
}
