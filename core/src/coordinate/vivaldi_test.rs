use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

/// Nodes on a plane with heights, in seconds: the true round trip is the distance and both heights.
struct Plane {
    places: Vec<(f64, f64, f64)>,
    nodes: Vec<Vivaldi>,
    names: Vec<Text>,
    rng: Rng,
}

impl Plane {
    fn new(places: Vec<(f64, f64, f64)>, seed: u64) -> Plane {
        let rng = Rng::from_seed(seed);
        let nodes = (0..places.len()).map(|node| Vivaldi::new(rng.fork(node as u64))).collect();
        let names = (0..places.len()).map(|node| Text::from(format!("node-{node}"))).collect();
        Plane { places, nodes, names, rng }
    }

    fn truth(&self, a: usize, b: usize) -> f64 {
        let ((ax, ay, ah), (bx, by, bh)) = (self.places[a], self.places[b]);
        ((ax - bx) * (ax - bx) + (ay - by) * (ay - by)).sqrt() + ah + bh
    }

    /// Each node measures one random other, so often; jitter is a share of the round trip that is added at random.
    fn run(&mut self, rounds: usize, jitter: f64) {
        let count = self.nodes.len();
        for _ in 0..rounds {
            for node in 0..count {
                let offset = 1 + usize::try_from(self.rng.below(count as u64 - 1)).unwrap();
                let peer = (node + offset) % count;
                let late = 1.0 + jitter * self.rng.below(1_000) as f64 / 1_000.0;
                let rtt = Duration::from_secs_f64(self.truth(node, peer) * late);
                let seen = self.nodes[peer].get().clone();
                let name = self.names[peer].clone();
                assert!(self.nodes[node].update(&seen, &name, rtt));
                assert!(self.nodes[node].get().is_plausible());
            }
        }
    }

    /// The median over all pairs of |estimate - truth| / truth, and the worst.
    fn errors(&self) -> (f64, f64) {
        let count = self.nodes.len();
        let mut errors: Vec<f64> = (0..count)
            .flat_map(|a| (0..a).map(move |b| (a, b)))
            .map(|(a, b)| {
                let (estimate, truth) = (self.nodes[a].get().distance(self.nodes[b].get()), self.truth(a, b));
                (estimate - truth).abs() / truth
            })
            .collect();
        errors.sort_by(f64::total_cmp);
        (errors[errors.len() / 2], errors[errors.len() - 1])
    }
}

#[test]
fn nodes_on_a_line_find_their_distances_within_two_percent() {
    let mut line = Plane::new((0..10).map(|x| (f64::from(x) * 0.010, 0.0, 0.0)).collect(), 1);
    line.run(1_500, 0.0);
    let (median, worst) = line.errors();
    assert!(median < 0.02 && worst < 0.15, "median {median}, worst {worst}");
}

#[test]
fn nodes_on_a_grid_find_their_distances_within_two_percent() {
    let mut grid =
        Plane::new((0..25).map(|n| (f64::from(n % 5) * 0.010, f64::from(n / 5) * 0.010, 0.0)).collect(), 2);
    grid.run(1_500, 0.0);
    let (median, worst) = grid.errors();
    assert!(median < 0.02 && worst < 0.15, "median {median}, worst {worst}");
}

#[test]
fn slow_access_links_become_heights_or_dimensions_within_five_percent() {
    let places = (0..20).map(|n| {
        let height = if n % 4 == 0 { 0.020 } else { 0.001 };
        (f64::from(n * 7 % 20) * 0.005, f64::from(n * 3 % 20) * 0.005, height)
    });
    let mut plane = Plane::new(places.collect(), 3);
    plane.run(1_500, 0.0);
    let (median, worst) = plane.errors();
    assert!(median < 0.05 && worst < 0.4, "median {median}, worst {worst}");
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let run = || {
        let mut plane = Plane::new((0..5).map(|x| (f64::from(x) * 0.003, 0.0, 0.001)).collect(), 9);
        plane.run(50, 0.3);
        plane.nodes[0].get().clone()
    };
    assert_eq!(run(), run());
}

#[test]
fn hostile_coordinates_and_measurements_move_nobody() {
    let mut node = Vivaldi::new(Rng::from_seed(1));
    let name = Text::new("liar");
    let good = Coordinate::default();
    assert!(node.update(&good, &name, Duration::from_millis(3)));
    let before = node.get().clone();
    for value in [f64::NAN, f64::INFINITY, -f64::INFINITY, 1e300, -1e9] {
        let mut vec = [0.0; DIMENSIONS];
        vec[3] = value;
        for liar in [
            Coordinate { vec, ..good.clone() },
            Coordinate { height: value, ..good.clone() },
            Coordinate { error: value, ..good.clone() },
            Coordinate { adjustment: value, ..good.clone() },
        ] {
            assert!(!node.update(&liar, &name, Duration::from_millis(3)));
        }
    }
    assert!(!node.update(&good, &name, Duration::from_secs(11)));
    assert_eq!(*node.get(), before);
    assert!(node.update(&good, &name, Duration::ZERO));
    assert!(node.get().is_plausible());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn random_planes_with_heights_and_jitter_are_found_within_a_quarter(
        places in proptest::collection::vec((0.0..0.1f64, 0.0..0.1f64, 0.000_1..0.01f64), 12..20),
        seed in any::<u64>(),
    ) {
        let mut plane = Plane::new(places, seed);
        plane.run(800, 0.1);
        let (median, _) = plane.errors();
        prop_assert!(median < 0.25, "median {}", median);
    }

    #[test]
    fn a_coordinate_is_always_plausible_whatever_peers_say(
        peers in proptest::collection::vec((any::<[f64; DIMENSIONS]>(), any::<[f64; 3]>(), 0u64..12_000), 1..100),
        scale in prop_oneof![Just(1.0), Just(1e-300), Just(1e-307)],
    ) {
        let mut node = Vivaldi::new(Rng::from_seed(5));
        for (vec, [error, adjustment, height], rtt) in peers {
            let peer = Coordinate {
                vec: vec.map(|part| part * scale),
                error: (error * scale).abs(),
                adjustment: adjustment * scale,
                height: (height * scale).abs(),
            };
            node.update(&peer, &Text::new("peer"), Duration::from_millis(rtt));
            prop_assert!(node.get().is_plausible());
        }
    }

    #[test]
    fn plausible_liars_cannot_make_it_implausible(
        peers in proptest::collection::vec((proptest::array::uniform8(-60.0..60.0f64), 0.0..3.0f64, 0.0..60.0f64, 0u64..10_000), 1..200),
    ) {
        let mut node = Vivaldi::new(Rng::from_seed(6));
        for (vec, error, height, rtt) in peers {
            let peer = Coordinate { vec, error, adjustment: height - 30.0, height };
            prop_assert!(node.update(&peer, &Text::new("peer"), Duration::from_millis(rtt)));
            prop_assert!(node.get().is_plausible());
        }
    }
}
