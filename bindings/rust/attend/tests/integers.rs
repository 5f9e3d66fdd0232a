//! Products of 8-bit integers: exact sums, and scales of powers of two, with which it is the f32 product's.

use attend::*;

const M: usize = 7;
const K: usize = 1100;
const N: usize = 5;

fn bytes(count: usize, step: usize) -> Vec<u8> {
    (0..count).map(|i| (i * step % 251) as u8).collect()
}

struct Product {
    a: Vec<i8>,
    b: Vec<u8>,
    a_zero: Vec<i32>,
    b_zero: Vec<i32>,
}

impl Product {
    fn new() -> Self {
        Product {
            a: bytes(M * K, 37).iter().map(|&x| x as i8).collect(),
            b: bytes(N * K, 101),
            a_zero: (0..M as i32).map(|i| 3 * i - 7).collect(),
            b_zero: vec![128],
        }
    }
    fn of(&self, i: usize, j: usize) -> i32 {
        let term = |k| {
            let a = i32::from(self.a[i * K + k]) - self.a_zero[i];
            a * (i32::from(self.b[j * K + k]) - self.b_zero[0])
        };
        (0..K).map(term).sum()
    }
    fn run<'a>(&'a self, c: ViewMut, mut options: MatmulOptions<'a>) -> Result<(), Error> {
        let a_zero = View::strided(&self.a_zero, 0, &[M, 1], &[1, 0]).unwrap();
        options.a_zero = Some(a_zero);
        options.b_zero = Some(View::new(&self.b_zero, &[1, 1]).unwrap());
        matmul(
            View::weight(&self.a, 1, M, K).unwrap(),
            View::new(&self.b, &[N, K]).unwrap(),
            c,
            options,
        )
    }
}

#[test]
fn exact_sums() {
    let (product, mut c) = (Product::new(), vec![0i32; M * N]);
    let bias: Vec<i32> = (0..M as i32).map(|i| 1000 * i).collect();
    let options = MatmulOptions {
        bias: Some(View::new(&bias, &[M]).unwrap().into()),
        ..Default::default()
    };
    let view = ViewMut::new(&mut c, &[N, M]).unwrap();
    product.run(view.into(), options).unwrap();
    for j in 0..N {
        for i in 0..M {
            assert_eq!(c[j * M + i], product.of(i, j) + bias[i]);
        }
    }
}

#[test]
fn scales() {
    let (product, mut c) = (Product::new(), vec![0f32; M * N]);
    let a_scale: Vec<f32> = (0..M).map(|i| 2f32.powi(i as i32 - 9)).collect();
    let b_scale: Vec<f32> = (0..N).map(|j| 2f32.powi(-(j as i32))).collect();
    let scaled = || MatmulOptions {
        a_scale: Some(View::strided(&a_scale, 0, &[M, 1], &[1, 0]).unwrap()),
        b_scale: Some(View::new(&b_scale, &[N, 1]).unwrap()),
        ..Default::default()
    };
    let view = ViewMut::new(&mut c, &[N, M]).unwrap();
    product.run(view.into(), scaled()).unwrap();
    for j in 0..N {
        for i in 0..M {
            let want = a_scale[i] * b_scale[j] * product.of(i, j) as f32;
            assert_eq!(c[j * M + i], want);
        }
    }

    // Weights of integers beside floats.
    let x: Vec<f32> = product.b.iter().map(|&b| f32::from(b) / 8.0).collect();
    let wide: Vec<f32> = (0..M * K)
        .map(|at| a_scale[at / K] * f32::from(product.a[at]))
        .collect();
    let mut want = c.clone();
    let x = View::new(&x, &[N, K]).unwrap();
    let options = MatmulOptions {
        b_scale: None,
        ..scaled()
    };
    matmul(
        View::weight(&product.a, 1, M, K).unwrap(),
        x,
        ViewMut::new(&mut c, &[N, M]).unwrap(),
        options,
    )
    .unwrap();
    matmul(
        View::weight(&wide, 1, M, K).unwrap(),
        x,
        ViewMut::new(&mut want, &[N, M]).unwrap(),
        Default::default(),
    )
    .unwrap();
    assert_eq!(c, want);

    let mut exact = vec![0i32; M * N];
    let view = ViewMut::new(&mut exact, &[N, M]).unwrap();
    let error = product.run(view.into(), scaled()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "options.a_scale: is given, but c's type is int32, not a floating-point type."
    );
}
