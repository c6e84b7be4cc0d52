//! Rules of checks: thresholds, what expired TTLs say, how output is cut, what aliases stand for.
//!
//! Source: Consul's documentation, «Health check configuration reference». Everything here is calculation; timers and
//! effects are the machine's.

use std::collections::BTreeSet;
use std::time::Duration;

use super::definition::{CheckKind, INTERVAL_MIN, SCRIPT_TIMEOUT, TIMEOUT, Tls};
use super::local::{Local, Run};
use super::{CatalogState, Probe, ProbeKind};
use crate::Text;
use crate::store::model::{Check, Health};

/// Counts a result and says which state it makes; `None`: too early to say anything new.
pub(super) fn count(run: &mut Run, result: Health) -> Option<Health> {
    let definition = &run.definition;
    if result == Health::Critical {
        run.successes = 0;
        run.failures = run.failures.saturating_add(1);
        if run.failures >= definition.failures_before_critical {
            Some(Health::Critical)
        } else if run.failures >= definition.failures_before_warning {
            Some(Health::Warning)
        } else {
            None
        }
    } else {
        run.failures = 0;
        run.successes = run.successes.saturating_add(1);
        (run.successes >= definition.success_before_passing).then_some(result)
    }
}

/// The time between two runs.
pub(super) fn interval(kind: &CheckKind) -> Option<Duration> {
    Some(kind.schedule()?.interval.max(INTERVAL_MIN))
}

/// What is to be found out about the world for a check.
pub(super) fn probe(run: &Run) -> Option<Probe> {
    let check = &run.definition.kind;
    let kind = probe_kind(check, None)?;
    let limit = if check.is_script() { SCRIPT_TIMEOUT } else { TIMEOUT };
    let timeout = check.schedule()?.timeout.unwrap_or(limit);
    Some(Probe { kind, timeout, output_max: run.definition.output_max_size as usize })
}

fn probe_kind(check: &CheckKind, tls: Option<&Tls>) -> Option<ProbeKind> {
    let tls = tls.cloned();
    Some(match check {
        CheckKind::Http {
            url,
            method,
            headers,
            body,
            disable_redirects,
            tls_skip_verify,
            tls_server_name,
            schedule: _,
        } => ProbeKind::Http {
            url: url.clone(),
            method: if method.is_empty() { "GET".into() } else { method.clone() },
            headers: headers.clone(),
            body: body.clone(),
            follow_redirects: !disable_redirects,
            tls: Tls { skip_verify: *tls_skip_verify, server_name: tls_server_name.clone() },
        },
        CheckKind::Tcp { address, .. } => ProbeKind::Tcp { address: address.clone(), tls },
        CheckKind::Udp { address, .. } => ProbeKind::Udp { address: address.clone() },
        CheckKind::Script { args, .. } => ProbeKind::Script { args: args.clone() },
        CheckKind::Docker { container, shell, args, .. } => {
            let (container, shell, args) = (container.clone(), shell.clone(), args.clone());
            ProbeKind::Docker { container, shell, args }
        }
        CheckKind::Grpc { target, .. } => ProbeKind::Grpc { target: target.clone(), tls },
        CheckKind::H2Ping { address, .. } => ProbeKind::H2Ping { address: address.clone(), tls },
        CheckKind::OsService { name, .. } => ProbeKind::OsService { name: name.clone() },
        CheckKind::OverTls { kind, tls } => return probe_kind(kind, Some(tls)),
        CheckKind::Ttl { .. } | CheckKind::Alias { .. } | CheckKind::Maintenance => return None,
    })
}

/// What a TTL check says when its client has been silent.
pub(super) fn expired(last_output: &str) -> Text {
    if last_output.is_empty() {
        "TTL expired".into()
    } else {
        format!("TTL expired (last output before timeout follows): {last_output}").into()
    }
}

/// Cuts what a client reported to `max` bytes and says so.
pub(super) fn cut(output: &str, max: usize) -> Text {
    if output.len() <= max {
        return output.into();
    }
    let kept = floor_char_boundary(output, max);
    format!("{} ... (captured {kept} of {} bytes)", &output[..kept], output.len()).into()
}

fn floor_char_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// State and output of an alias check: the worst of the checks that it stands for. Where one of those is an alias itself,
/// what that one stands for counts, so that aliases in a circle do not keep each other in a state.
pub(super) fn alias(local: &Local, id: &Text) -> (Health, Text) {
    let mut seen = BTreeSet::from([id]);
    let mut open = vec![id];
    let mut worst: Option<&Check> = None;
    while let Some(id) = open.pop() {
        let Some((node, service)) = local.alias(id) else {
            let check = local.check(id).expect("indexed checks exist");
            if worst.is_none_or(|worst| check.status > worst.status) {
                worst = Some(check);
            }
            continue;
        };
        if !service.is_empty() && local.service(service).is_none() {
            return not_found(service, node);
        }
        // An alias of a node looks at everything on it, an alias of a service at that service and the node itself.
        let before = open.len();
        if service.is_empty() {
            open.extend(local.checks().map(|(id, _)| id).filter(|id| seen.insert(id)));
        } else {
            let ids = local.checks_of(service).chain(local.checks_of(""));
            open.extend(ids.filter(|id| seen.insert(id)));
        }
        // Taken from the end, so that the first one by id is blamed among equally bad ones.
        open[before..].reverse();
    }
    verdict(worst)
}

/// State and output of an alias check of another node, from what the catalog has of that.
pub(super) fn foreign_alias(catalog: &CatalogState, node: &str, service: &str) -> (Health, Text) {
    if !service.is_empty() && !catalog.services.iter().any(|row| row.id == service) {
        return not_found(service, node);
    }
    let concerned =
        |check: &&Check| service.is_empty() || check.service_id.is_empty() || check.service_id == service;
    let mut worst: Option<&Check> = None;
    for check in catalog.checks.iter().filter(concerned) {
        // The first one by id is blamed among equally bad ones.
        if worst.is_none_or(|worst| check.status > worst.status) {
            worst = Some(check);
        }
    }
    verdict(worst)
}

fn not_found(service: &str, node: &str) -> (Health, Text) {
    (Health::Critical, format!("Service {service} could not be found on node {node}").into())
}

fn verdict(worst: Option<&Check>) -> (Health, Text) {
    match worst {
        None => (Health::Passing, "No checks found.".into()),
        Some(check) if check.status == Health::Passing => (Health::Passing, "All checks passing.".into()),
        Some(check) => {
            let text = format!("Aliased check {:?} failing: {}", check.name.as_str(), check.output);
            (check.status, text.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use Health::{Critical, Passing, Warning};

    use super::*;
    use crate::agent::CheckDefinition;
    use crate::agent::definition::Schedule;

    fn run(success: u32, warning: u32, critical: u32) -> Run {
        let schedule = Schedule { interval: Duration::from_millis(1), timeout: None };
        let mut definition =
            CheckDefinition::new("c", "c", CheckKind::Tcp { address: "x:1".into(), schedule });
        definition.success_before_passing = success;
        definition.failures_before_warning = warning;
        definition.failures_before_critical = critical;
        Run::new(definition, false)
    }

    /// Results and the states that they must make.
    type Story = &'static [(Health, Option<Health>)];

    #[test]
    fn results_count_until_their_threshold() {
        let cases: [(Run, Story); 4] = [
            (run(0, 0, 0), &[(Critical, Some(Critical)), (Passing, Some(Passing)), (Warning, Some(Warning))]),
            // The first result applies at once, whatever it is.
            (
                run(3, 3, 3),
                &[(Critical, Some(Critical)), (Passing, None), (Passing, None), (Passing, Some(Passing))],
            ),
            (
                run(2, 4, 4),
                &[
                    (Passing, Some(Passing)),
                    (Critical, None),
                    (Critical, None),
                    (Passing, None),
                    (Critical, None),
                ],
            ),
            (
                run(0, 2, 3),
                &[
                    (Passing, Some(Passing)),
                    (Critical, None),
                    (Critical, Some(Warning)),
                    (Critical, Some(Critical)),
                ],
            ),
        ];
        for (mut run, results) in cases {
            for (result, expected) in results {
                assert_eq!(count(&mut run, *result), *expected, "{run:?}");
            }
        }
    }

    #[test]
    fn checks_run_every_second_at_most() {
        assert_eq!(interval(&run(0, 0, 0).definition.kind), Some(INTERVAL_MIN));
    }

    #[test]
    fn long_output_is_cut_with_a_remark_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc ... (captured 3 of 4 bytes)");
        assert_eq!(cut("aäö", 2), "a ... (captured 1 of 5 bytes)");
    }
}
