//! Random numbers, the formula in f64, and the notebook's inputs.
#![allow(dead_code)]

/// Standard normals from a 64-bit generator (Steele, Lea and Flood's SplitMix).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
    pub fn normals(&mut self, count: usize) -> Vec<f64> {
        let one = |r: &mut Self| {
            (-2.0 * (1.0 - r.next()).ln()).sqrt() * (std::f64::consts::TAU * r.next()).cos()
        };
        (0..count).map(|_| one(self)).collect()
    }
}

/// Of a seed that differs from run to run.
pub fn draw(count: usize) -> Vec<f32> {
    let mut random = Random(std::process::id() as u64 ^ count as u64);
    random.normals(count).iter().map(|&x| x as f32).collect()
}

/// Attention of dense [batch, heads, N, D] arrays; added is -inf where a key is hidden.
pub struct Problem {
    pub batch: usize,
    pub heads: usize,
    pub kv: usize,
    pub queries: usize,
    pub keys: usize,
    pub d: usize,
    pub q: Vec<f64>,
    pub k: Vec<f64>,
    pub v: Vec<f64>,
}

impl Problem {
    pub fn new(random: &mut Random) -> Self {
        let (batch, heads, kv, queries, keys, d) = (2, 4, 2, 5, 37, 9);
        // Rounded to f32, so that both types start from the same numbers.
        let mut draw = |n| {
            random
                .normals(n)
                .iter()
                .map(|&x| f64::from(x as f32))
                .collect::<Vec<_>>()
        };
        let (q, k, v) = (
            draw(batch * heads * queries * d),
            draw(batch * kv * keys * d),
            draw(batch * kv * keys * d),
        );
        Problem {
            batch,
            heads,
            kv,
            queries,
            keys,
            d,
            q,
            k,
            v,
        }
    }
    pub fn formula(
        &self,
        scale: f64,
        added: impl Fn(usize, usize, usize, usize) -> f64,
    ) -> Vec<f64> {
        let mut out = vec![0.0; self.q.len()];
        for b in 0..self.batch {
            for h in 0..self.heads {
                let kv = b * self.kv + h / (self.heads / self.kv);
                for i in 0..self.queries {
                    let row = ((b * self.heads + h) * self.queries + i) * self.d;
                    let at = |j: usize, f: usize| (kv * self.keys + j) * self.d + f;
                    let s: Vec<f64> = (0..self.keys)
                        .map(|j| {
                            (0..self.d)
                                .map(|f| self.q[row + f] * self.k[at(j, f)])
                                .sum::<f64>()
                                * scale
                                + added(j, i, h, b)
                        })
                        .collect();
                    let most = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    if most == f64::NEG_INFINITY {
                        continue;
                    }
                    let sum: f64 = s.iter().map(|x| (x - most).exp()).sum();
                    for f in 0..self.d {
                        out[row + f] = (0..self.keys)
                            .map(|j| (s[j] - most).exp() * self.v[at(j, f)])
                            .sum::<f64>()
                            / sum;
                    }
                }
            }
        }
        out
    }
}

/// Name, rows, columns and row-major elements of each matrix of ../notebook/inputs.txt.
pub fn notebook() -> std::collections::HashMap<String, (usize, usize, Vec<f64>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../notebook/inputs.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let mut matrices = std::collections::HashMap::new();
    while let Some(head) = lines.next() {
        let head: Vec<&str> = head.split(' ').collect();
        let rows: usize = head[1].parse().unwrap();
        let data = lines
            .by_ref()
            .take(rows)
            .flat_map(|l| l.split(' ').map(|x| x.parse().unwrap()))
            .collect();
        matrices.insert(head[0].to_string(), (rows, head[2].parse().unwrap(), data));
    }
    matrices
}
