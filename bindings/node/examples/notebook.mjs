// The self-attention of the notebook, printed as it prints it, and the time of a call.
import * as attend from '../index.mjs';
import { notebook, transposed } from '../test/common.mjs';

const m = notebook();
const weights = { wq: m.omega_q, wk: m.omega_k, wv: m.omega_v, bq: m.beta_q.data, bk: m.beta_k.data, bv: m.beta_v.data };
const x = transposed(m.x);
for (const [title, options] of [['x_prime, unscaled:', { scale: 1 }], ['x_prime, scaled by 1/sqrt(D):', {}]]) {
  const { data } = attend.selfAttention(x, weights, options);
  console.log(title);
  for (let item = 0; item < 3; item++) console.log([...data.subarray(4 * item, 4 * item + 4)].map((v) => v.toFixed(8).padStart(13)).join(''));
}
const out = attend.view(new Float64Array(12), [3, 4]);
const time = (calls) => {
  const start = process.hrtime.bigint();
  for (let i = 0; i < calls; i++) attend.selfAttention(x, weights, { out });
  return Number(process.hrtime.bigint() - start) / calls;
};
time(20000);
console.log(`${time(50000).toFixed(0)} ns a call`);
