//! How faithful a map is: trustworthiness and continuity (Venna & Kaski 2001), and how far apart anomalies lie on it.

use crate::cli::quality::auc;

/// Neighbours that are looked at.
pub const NEIGHBOURS: usize = 12;
/// Records that are compared with each other, about: the work grows with their square.
pub const COMPARED_MAX: usize = 1_500;

/// Rank of every other point by its distance from each point, 1 for the nearest; 0 for the point itself. Points x points.
struct Ranks(Vec<Vec<u32>>);

impl Ranks {
    fn of(points: &[Vec<f32>]) -> Self {
        let mut order: Vec<usize> = (0..points.len()).collect();
        let ranks = (0..points.len()).map(|from| {
            let distances: Vec<f32> = points.iter().map(|to| distance(&points[from], to)).collect();
            // The point itself is first, whatever lies in the same place.
            order.sort_by(|&a, &b| {
                (a != from).cmp(&(b != from)).then(distances[a].total_cmp(&distances[b])).then(a.cmp(&b))
            });
            let mut ranks = vec![0; points.len()];
            order.iter().zip(0..).for_each(|(&at, rank)| ranks[at] = rank);
            ranks
        });
        Ranks(ranks.collect())
    }

    /// 1 less the mean of how much farther away neighbours here are there, in the scale of Venna & Kaski: 1 if they are neighbours there too.
    fn kept_in(&self, there: &Ranks, k: usize) -> f64 {
        let (n, k) = (self.0.len() as f64, k as f64);
        let pairs = self.0.iter().flatten().zip(there.0.iter().flatten());
        let farther: f64 = pairs
            .filter(|(here, there)| **here > 0 && f64::from(**here) <= k && f64::from(**there) > k)
            .map(|(_, there)| f64::from(*there) - k)
            .sum();
        1.0 - 2.0 * farther / (n * k * (2.0 * n - 3.0 * k - 1.0))
    }
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// Whether neighbours on the map are neighbours among the records (trustworthiness), and whether those are on the map (continuity). None of
/// fewer records than that means something for.
pub fn faithful(records: &[Vec<f32>], map: &[Vec<f32>]) -> Option<(f64, f64)> {
    if records.len() < 3 * NEIGHBOURS {
        return None;
    }
    let (records, map) = (Ranks::of(records), Ranks::of(map));
    Some((map.kept_in(&records, NEIGHBOURS), records.kept_in(&map, NEIGHBOURS)))
}

/// How well anomalies can be told by how lonely they are on a map: ROC-AUC of the distance to the last one of the nearest neighbours. None if
/// there are no anomalies, or nothing else.
pub fn separation(map: &[Vec<f32>], labels: &[bool]) -> Option<f64> {
    let lonely = map.iter().map(|from| {
        let mut distances: Vec<f32> = map.iter().map(|to| distance(from, to)).collect();
        // Its own is among them.
        let last = NEIGHBOURS.min(distances.len() - 1);
        f64::from(*distances.select_nth_unstable_by(last, f32::total_cmp).1)
    });
    auc(labels, &lonely.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::noise;

    fn points(seed: u64, n: usize, d: usize) -> Vec<Vec<f32>> {
        noise(seed, n * d).chunks_exact(d).map(|row| row.iter().map(|v| *v as f32).collect()).collect()
    }

    #[test]
    fn the_same_map_is_faithful_and_one_of_chance_is_not() {
        let records = points(1, 300, 3);
        assert_eq!(faithful(&records, &records), Some((1.0, 1.0)));
        let (trust, continuity) = faithful(&records, &points(2, 300, 2)).unwrap();
        assert!((0.4..0.6).contains(&trust) && (0.4..0.6).contains(&continuity), "{trust} {continuity}");
        assert_eq!(faithful(&records[..20], &records[..20]), None);
    }

    #[test]
    fn what_is_torn_apart_and_what_is_folded_together_are_told_apart() {
        // A line that is folded: far ends meet. Neighbours stay, strangers join them.
        let line: Vec<Vec<f32>> = (0..300).map(|i| vec![i as f32]).collect();
        let folded: Vec<Vec<f32>> =
            (0..300).map(|i: i32| vec![((i - 150).abs()) as f32 + 0.1 * (i % 2) as f32]).collect();
        let (trust, continuity) = faithful(&line, &folded).unwrap();
        assert!(trust < 0.8 && continuity > 0.95, "{trust} {continuity}");
    }

    #[test]
    fn anomalies_that_lie_alone_are_separate() {
        let mut map = points(1, 200, 2);
        map.extend((0..5).map(|i| vec![20.0 + 9.0 * i as f32, 5.0]));
        let labels: Vec<bool> = (0..205).map(|i| i >= 200).collect();
        assert_eq!(separation(&map, &labels), Some(1.0));
        assert_eq!(separation(&map, &[false; 205]), None);
    }
}
