/* How the numbers above estimate: an extended Kalman filter. C99 and MuJoCo's C API.

   mjModel *model = mj_loadXML(DSO_ESTIMATOR_MODEL, NULL, error, sizeof error);
   dso_estimator estimator;
   dso_estimator_init(&estimator, model);          the filter sets the model's time step; the model is not to be used elsewhere
   dso_estimator_reset(&estimator, qpos, qvel, act, readings);      NULL where nothing is known
   at every reading:
     dso_estimator_update(&estimator, ctrl, readings, seconds);     seconds since the last one; 0 for DSO_ESTIMATOR_INTERVAL
   dso_estimator_free(&estimator);

   The estimate is estimator.state = qpos, qvel, act, and estimator.now.covariance that of its error in the tangent space (the first
   DSO_ESTIMATOR_TANGENT of DSO_ESTIMATOR_SIZE_K rows and columns). ctrl is constant during the interval, readings are those at its
   end, NAN where nothing was measured, in the order of dso_estimator_readings: those of sensors, and what tells that feet stand. They
   give the channels dso_estimator_channels, of which those of a foot's velocity are 0 while it stands. Memory is allocated in `init` only. Two threads must
   not use the same estimator at once. */

#define DSO_ESTIMATOR_BAD_INPUT 2   /* a control is not finite, a reading is infinite, or the seconds are negative or over an hour */
#define DSO_ESTIMATOR_BLEW_UP 3     /* the prediction diverged */
#define DSO_ESTIMATOR_WILD 4        /* a reading that the filter cannot take in; give NAN instead, or reset */
/* After any of these the estimate is as before. What was told of the readings (predicted, innovation, std) and the gate's counts may be
   those of the update that was not made. */

#define DSO_ESTIMATOR_WIDTH (DSO_ESTIMATOR_NQ + DSO_ESTIMATOR_NV + DSO_ESTIMATOR_NA)
#define DSO_ESTIMATOR_TANGENT (2 * DSO_ESTIMATOR_NV + DSO_ESTIMATOR_NA)
#define DSO_ESTIMATOR_SIZE_K (DSO_ESTIMATOR_TANGENT + DSO_ESTIMATOR_BIASES)
#define DSO_ESTIMATOR_SQUARE (DSO_ESTIMATOR_SIZE_K * DSO_ESTIMATOR_SIZE_K)
#define DSO_ESTIMATOR_SLOPE (DSO_ESTIMATOR_NY * DSO_ESTIMATOR_SIZE_K)

typedef struct {
  double state[DSO_ESTIMATOR_WIDTH];      /* qpos, qvel, act */
  double offset[DSO_ESTIMATOR_NY];        /* drift of the channels' biases */
  double covariance[DSO_ESTIMATOR_SQUARE]; /* of state and drifting biases */
  double jumped[DSO_ESTIMATOR_SQUARE];     /* what a jump of the biases in the last second adds to it */
} dso_estimator_belief;

typedef struct {
  double change[DSO_ESTIMATOR_SIZE_K], covariance[DSO_ESTIMATOR_SQUARE], cost;
} dso_estimator_change;

typedef struct {
  mjModel *model;
  mjData *data;
  double state[DSO_ESTIMATOR_WIDTH];   /* qpos, qvel, act */
  double predicted[DSO_ESTIMATOR_NY];  /* readings predicted before the measurement */
  double innovation[DSO_ESTIMATOR_NY]; /* measurement minus prediction, NAN where missing or left out */
  double std[DSO_ESTIMATOR_NY];        /* predicted standard deviation of the innovations */
  int gated[DSO_ESTIMATOR_SENSORS];    /* by sensor, readings that the gate has shut out */
  dso_estimator_belief now;
  int wild_row[DSO_ESTIMATOR_SENSORS], likely_row[DSO_ESTIMATOR_SENSORS], left[DSO_ESTIMATOR_SENSORS], calm;
  double surprise[DSO_ESTIMATOR_SENSORS]; /* what the readings tell for wider innovations [nat] */
  /* What follows is scratch memory. */
  double small[DSO_ESTIMATOR_TANGENT * DSO_ESTIMATOR_TANGENT], shown[DSO_ESTIMATOR_NSENSORDATA * DSO_ESTIMATOR_TANGENT];
  double kept[DSO_ESTIMATOR_NSENSORDATA], a[DSO_ESTIMATOR_SQUARE], b[DSO_ESTIMATOR_SQUARE], c[DSO_ESTIMATOR_SQUARE];
  double h[DSO_ESTIMATOR_SLOPE], slope[DSO_ESTIMATOR_SLOPE], tried[DSO_ESTIMATOR_SLOPE], cross[DSO_ESTIMATOR_SLOPE];
  double gain[DSO_ESTIMATOR_SLOPE], spread[DSO_ESTIMATOR_NY * DSO_ESTIMATOR_NY], weight[DSO_ESTIMATOR_SQUARE];
  dso_estimator_change done, found, best;
  dso_estimator_belief ahead, before, placed;
} dso_estimator;

/* out[rows][columns] = left[rows][inner] right[inner][columns], either of them transposed where asked. */
static inline void dso_estimator_matrix(const double *left, int lt, const double *right, int rt, int rows, int inner, int columns,
                                        double *out) {
  int i, j, k;
  for (i = 0; i < rows; i++)
    for (j = 0; j < columns; j++) {
      double sum = 0.0;
      for (k = 0; k < inner; k++) sum += left[lt ? k * rows + i : i * inner + k] * right[rt ? j * inner + k : k * columns + j];
      out[i * columns + j] = sum;
    }
}

/* Cholesky factor of a positive matrix in place; 0 if it is not positive. */
static inline int dso_estimator_factor(double *m, int n) {
  int i, j, k;
  for (j = 0; j < n; j++) {
    for (i = j; i < n; i++) {
      double sum = m[i * n + j];
      for (k = 0; k < j; k++) sum -= m[i * n + k] * m[j * n + k];
      if (i > j)
        m[i * n + j] = sum / m[j * n + j];
      else if (sum > 0)
        m[j * n + j] = sqrt(sum);
      else
        return 0;
    }
  }
  return 1;
}

/* Solve with a Cholesky factor, in place. */
static inline void dso_estimator_solve(const double *factor, int n, double *x) {
  int i, k;
  for (i = 0; i < n; i++) {
    for (k = 0; k < i; k++) x[i] -= factor[i * n + k] * x[k];
    x[i] /= factor[i * n + i];
  }
  for (i = n - 1; i >= 0; i--) {
    for (k = i + 1; k < n; k++) x[i] -= factor[k * n + i] * x[k];
    x[i] /= factor[i * n + i];
  }
}

static inline void dso_estimator_even(double *m) {
  int i, j;
  for (i = 0; i < DSO_ESTIMATOR_SIZE_K; i++)
    for (j = 0; j < i; j++) {
      const double mean = (m[i * DSO_ESTIMATOR_SIZE_K + j] + m[j * DSO_ESTIMATOR_SIZE_K + i]) / 2;
      m[i * DSO_ESTIMATOR_SIZE_K + j] = m[j * DSO_ESTIMATOR_SIZE_K + i] = mean;
    }
}

static inline void dso_estimator_place(dso_estimator *e, const double *state, const double *ctrl) {
  dso_estimator_copy(state, DSO_ESTIMATOR_NQ, e->data->qpos);
  dso_estimator_copy(state + DSO_ESTIMATOR_NQ, DSO_ESTIMATOR_NV, e->data->qvel);
  if (DSO_ESTIMATOR_NA) dso_estimator_copy(state + DSO_ESTIMATOR_NQ + DSO_ESTIMATOR_NV, DSO_ESTIMATOR_NA, e->data->act);
  dso_estimator_copy(ctrl, DSO_ESTIMATOR_NU, e->data->ctrl);
}

/* What a small further change amounts to in the tangent after `change`: rotations do not add. */
static inline void dso_estimator_jacobian(const double *change, double *out) {
  const int n = DSO_ESTIMATOR_SIZE_K;
  int i, j, k;
  for (i = 0; i < n * n; i++) out[i] = i % (n + 1) == 0;
  for (k = 0; k < DSO_ESTIMATOR_TURNS; k++) {
    const int v = dso_estimator_turns[k];
    const double x = change[v], y = change[v + 1], z = change[v + 2], angle = sqrt(x * x + y * y + z * z);
    const double cross[9] = {0.0, -z, y, z, 0.0, -x, -y, x, 0.0};
    const double first = angle < 1e-4 ? 0.5 : (1 - cos(angle)) / (angle * angle);
    const double second = angle < 1e-4 ? 1.0 / 6.0 : (angle - sin(angle)) / (angle * angle * angle);
    double twice[9];
    dso_estimator_matrix(cross, 0, cross, 0, 3, 3, 3, twice);
    for (i = 0; i < 3; i++)
      for (j = 0; j < 3; j++) out[(v + i) * n + v + j] += -first * cross[3 * i + j] + second * twice[3 * i + j];
  }
}

/* p = j p j' */
static inline void dso_estimator_carry(dso_estimator *e, const double *j, double *p) {
  const int n = DSO_ESTIMATOR_SIZE_K;
  dso_estimator_matrix(j, 0, p, 0, n, n, n, e->c);
  dso_estimator_matrix(e->c, 0, j, 1, n, n, n, p);
}

/* A belief of which nothing but a guess is known. */
static inline void dso_estimator_begin(const double *state, const double *offset, dso_estimator_belief *to) {
  const int n = DSO_ESTIMATOR_SIZE_K;
  int i, j, k, t;
  for (i = 0; i < DSO_ESTIMATOR_WIDTH; i++) to->state[i] = state[i];
  for (i = 0; i < DSO_ESTIMATOR_NY; i++) to->offset[i] = offset[i];
  for (i = 0; i < n * n; i++) to->covariance[i] = i % (n + 1) == 0 ? dso_estimator_prior[i / n] * dso_estimator_prior[i / n] : 0.0;
  for (i = 0; i < n * n; i++) to->jumped[i] = 0.0;
  for (t = 0; t < DSO_ESTIMATOR_FREE; t++) {
    const int q = dso_estimator_free_turns[2 * t], v = dso_estimator_free_turns[2 * t + 1];
    double turn[9];
    mju_quat2Mat(turn, to->state + q);
    for (i = 0; i < 3; i++)
      for (j = 0; j < 3; j++) {
        double sum = 0.0;
        for (k = 0; k < 3; k++) sum += turn[3 * k + i] * dso_estimator_prior[v + k] * dso_estimator_prior[v + k] * turn[3 * k + j];
        to->covariance[(v + i) * n + v + j] = sum;
      }
  }
}

/* What the noise adds in t seconds. */
static inline void dso_estimator_add(double *p, double t) {
  const int n = DSO_ESTIMATOR_SIZE_K, nv = DSO_ESTIMATOR_NV;
  int i;
  for (i = 0; i < n; i++) p[i * n + i] += dso_estimator_process[i] * t;
  for (i = 0; i < nv; i++) {
    const double speed = dso_estimator_process[nv + i];
    p[i * n + i] += speed * t * t * t / 3;
    p[i * n + nv + i] += speed * t * t / 2;
    p[(nv + i) * n + i] += speed * t * t / 2;
  }
}

/* `from` once a bias jumps (1), or has jumped and misled the state since (2). */
static inline void dso_estimator_forget(const dso_estimator_belief *from, int restart, dso_estimator_belief *to) {
  const int n = DSO_ESTIMATOR_SIZE_K;
  int i;
  *to = *from;
  for (i = DSO_ESTIMATOR_TANGENT; i < n; i++) to->covariance[i * (n + 1)] += dso_estimator_prior[i] * dso_estimator_prior[i];
  for (i = 0; i < n * n; i++) {
    if (restart == 2) to->covariance[i] += from->jumped[i];
    to->jumped[i] = 0.0;
  }
}

/* `now` moved on by so many seconds. */
static inline int dso_estimator_predict(dso_estimator *e, const double *ctrl, double seconds, dso_estimator_belief *to) {
  const int n = DSO_ESTIMATOR_SIZE_K, k = DSO_ESTIMATOR_TANGENT;
  const double raw = ceil(seconds / (DSO_ESTIMATOR_INTERVAL / DSO_ESTIMATOR_SUBSTEPS) - 1e-6);
  int steps, pieces, piece, i, j;
  double largest = 0.0;
  if (raw > DSO_ESTIMATOR_MOST) {
    dso_estimator_begin(e->now.state, e->now.offset, to);
    return DSO_ESTIMATOR_OK;
  }
  steps = raw < 1 ? 1 : (int)raw;
  e->model->opt.timestep = seconds / steps;
  dso_estimator_place(e, e->now.state, ctrl);
  pieces = (steps + DSO_ESTIMATOR_SUBSTEPS - 1) / DSO_ESTIMATOR_SUBSTEPS;
  if (pieces < 4) pieces = 4;
  if (pieces > 20) pieces = 20;
  if (pieces > steps) pieces = steps;
  for (i = 0; i < n * n; i++) e->a[i] = i % (n + 1) == 0;
  for (piece = 0; piece < pieces; piece++) {
    const int count = steps / pieces + (piece < steps % pieces);
    mjd_transitionFD(e->model, e->data, 1e-6, 0, e->small, NULL, NULL, NULL);
    for (i = 0; i < n * n; i++) e->b[i] = i % (n + 1) == 0;
    for (i = 0; i < k; i++)
      for (j = 0; j < k; j++) e->b[i * n + j] = e->small[i * k + j];
    for (i = 0; i < count; i++) {
      dso_estimator_matrix(e->b, 0, e->a, 0, n, n, n, e->c);
      for (j = 0; j < n * n; j++) e->a[j] = e->c[j];
    }
    for (i = 0; i < count; i++) mj_step(e->model, e->data);
  }
  dso_estimator_copy(e->data->qpos, DSO_ESTIMATOR_NQ, to->state);
  dso_estimator_copy(e->data->qvel, DSO_ESTIMATOR_NV, to->state + DSO_ESTIMATOR_NQ);
  if (DSO_ESTIMATOR_NA) dso_estimator_copy(e->data->act, DSO_ESTIMATOR_NA, to->state + DSO_ESTIMATOR_NQ + DSO_ESTIMATOR_NV);
  if (!dso_estimator_below(to->state, DSO_ESTIMATOR_WIDTH, 1e10) || !dso_estimator_below(e->a, n * n, INFINITY)) {
    mj_resetData(e->model, e->data);
    return DSO_ESTIMATOR_BLEW_UP;
  }
  dso_estimator_copy(e->now.offset, DSO_ESTIMATOR_NY, to->offset);
  dso_estimator_copy(e->now.covariance, n * n, to->covariance);
  dso_estimator_carry(e, e->a, to->covariance);
  if (DSO_ESTIMATOR_BIASES) {
    const double share = exp(-seconds);
    dso_estimator_copy(e->now.jumped, n * n, to->jumped);
    dso_estimator_carry(e, e->a, to->jumped);
    for (i = 0; i < n * n; i++) to->jumped[i] *= share;
    for (i = k; i < n; i++) to->jumped[i * (n + 1)] += (1 - share) * dso_estimator_prior[i] * dso_estimator_prior[i];
  }
  dso_estimator_add(to->covariance, seconds);
  for (i = 0; i < n; i++) {
    const double over = to->covariance[i * n + i] / (dso_estimator_widest[i] * dso_estimator_widest[i]);
    e->done.change[i] = over > 1 ? 1 / sqrt(over) : 1.0;
    if (over > largest) largest = over;
  }
  for (i = 0; largest > 1 && i < n * n; i++) to->covariance[i] *= e->done.change[i / n] * e->done.change[i % n];
  dso_estimator_even(to->covariance);
  return DSO_ESTIMATOR_OK;
}

/* Readings in a state, innovations (quaternions as rotations; some number where nothing was measured) and H. */
static inline void dso_estimator_compare(dso_estimator *e, const dso_estimator_belief *at, const double *y, const double *ctrl,
                                         double *reading, double *off, double *h) {
  const int n = DSO_ESTIMATOR_SIZE_K, k = DSO_ESTIMATOR_TANGENT;
  int i, j, q;
  dso_estimator_place(e, at->state, ctrl);
  mj_forward(e->model, e->data);
  dso_estimator_copy(e->data->sensordata, DSO_ESTIMATOR_NSENSORDATA, e->kept);
  mjd_transitionFD(e->model, e->data, 1e-6, 0, NULL, NULL, e->shown, NULL);
  dso_estimator_copy(e->kept, DSO_ESTIMATOR_NSENSORDATA, e->data->sensordata);
  for (i = 0; i < DSO_ESTIMATOR_NY; i++) {
    const int from = dso_estimator_sensordata[i];
    reading[i] = e->kept[from] * dso_estimator_scale[i] + dso_estimator_bias[i] + at->offset[i];
    for (j = 0; j < k; j++) h[i * n + j] = e->shown[from * k + j] * dso_estimator_scale[i];
    for (j = k; j < n; j++) h[i * n + j] = 0.0;
  }
  for (i = 0; i < DSO_ESTIMATOR_BIASES; i++) h[dso_estimator_biases[i] * n + k + i] = 1.0;
  for (q = 0; q < DSO_ESTIMATOR_QUATERNIONS; q++) { /* a quaternion and its negative are one rotation */
    const int *place = dso_estimator_quaternion + 4 * q;
    double agreement = 0.0;
    for (i = 0; i < 4; i++) agreement += isfinite(y[place[i]]) ? reading[place[i]] * y[place[i]] : 0.0;
    for (i = 0; i < 4; i++) reading[place[i]] *= agreement < 0 ? -1.0 : 1.0;
  }
  for (i = 0; i < DSO_ESTIMATOR_NY; i++) off[i] = (isnan(y[i]) ? 0.0 : y[i]) - reading[i];
  for (q = 0; q < DSO_ESTIMATOR_QUATERNIONS; q++) {
    const int *place = dso_estimator_quaternion + 4 * q;
    const double w = reading[place[0]], x = reading[place[1]], b = reading[place[2]], z = reading[place[3]];
    const double rows[16] = {-x, w, z, -b, -b, -z, w, x, -z, b, -x, w, 0.0, 0.0, 0.0, 0.0};
    double in[4], out[4];
    for (j = -1; j < n; j++) {
      for (i = 0; i < 4; i++) in[i] = j < 0 ? off[place[i]] : h[place[i] * n + j];
      dso_estimator_matrix(rows, 0, in, 0, 4, 4, 1, out);
      for (i = 0; i < 4; i++) *(j < 0 ? off + place[i] : h + place[i] * n + j) = 2 * out[i];
    }
  }
}

/* S = h p h' + R */
static inline void dso_estimator_spread(dso_estimator *e, const double *p, const double *h, double *spread) {
  const int n = DSO_ESTIMATOR_SIZE_K, ny = DSO_ESTIMATOR_NY;
  int i;
  dso_estimator_matrix(h, 0, p, 0, ny, n, n, e->cross);
  dso_estimator_matrix(e->cross, 0, h, 1, ny, n, ny, spread);
  for (i = 0; i < ny; i++) spread[i * ny + i] += dso_estimator_noise[i];
}

/* What is left of the m innovations `at` of a foot, x, and of their covariance, part, once other sensors' were taken in. */
static inline int dso_estimator_beside(const double *off, const double *spread, const int *seen, const int *wild, const int *at,
                                       int m, double *x, double *part) {
  double inner[DSO_ESTIMATOR_NY * DSO_ESTIMATOR_NY], column[DSO_ESTIMATOR_NY];
  int known[DSO_ESTIMATOR_NY], n = 0, i, j, k;
  for (i = 0; i < DSO_ESTIMATOR_NY; i++)
    if (seen[i] && !dso_estimator_foot[dso_estimator_member[i]] && !wild[dso_estimator_member[i]]) known[n++] = i;
  for (i = 0; i < n; i++)
    for (j = 0; j < n; j++) inner[i * n + j] = spread[known[i] * DSO_ESTIMATOR_NY + known[j]];
  if (n && !dso_estimator_factor(inner, n)) return 0;
  for (j = 0; n && j < m; j++) {
    for (k = 0; k < n; k++) column[k] = spread[known[k] * DSO_ESTIMATOR_NY + at[j]];
    dso_estimator_solve(inner, n, column);
    for (k = 0; k < n; k++) x[j] -= column[k] * off[known[k]];
    for (i = 0; i < m; i++)
      for (k = 0; k < n; k++) part[i * m + j] -= spread[at[i] * DSO_ESTIMATOR_NY + known[k]] * column[k];
  }
  return 1;
}

/* By sensor, whether its reading is less likely than the gate allows, and what one that is likely tells for a covariance nine
   times as large. Returns whether any is unlikely. */
static inline int dso_estimator_judge(const double *off, const double *spread, const int *seen, int *wild, double *nats) {
  int s, i, j, any = 0, slips = 0;
  for (s = 0; s < DSO_ESTIMATOR_SENSORS; s++) { /* feet are the last ones */
    double part[DSO_ESTIMATOR_NY * DSO_ESTIMATOR_NY], x[DSO_ESTIMATOR_NY], left[DSO_ESTIMATOR_NY], square = 0.0;
    int at[DSO_ESTIMATOR_NY], m = 0;
    nats[s] = 0.0;
    for (i = 0; i < DSO_ESTIMATOR_NY; i++)
      if (dso_estimator_member[i] == s && seen[i]) at[m++] = i;
    for (i = 0; i < m; i++) {
      x[i] = left[i] = off[at[i]];
      for (j = 0; j < m; j++) part[i * m + j] = spread[at[i] * DSO_ESTIMATOR_NY + at[j]];
    }
    if (m && dso_estimator_foot[s] && any && !slips && isfinite(dso_estimator_limits[s * (DSO_ESTIMATOR_NY + 1) + m])) { /* the leg's own reading may be wild, and the foot's motion unknown */
      wild[s] = 1;
      continue;
    }
    if (m && dso_estimator_foot[s]) { /* a foot is judged after the leg's own readings of the same moment */
      if (!dso_estimator_beside(off, spread, seen, wild, at, m, x, part)) continue;
      dso_estimator_copy(x, m, left);
    }
    if (m && dso_estimator_factor(part, m)) {
      dso_estimator_solve(part, m, x);
      for (i = 0; i < m; i++) square += left[i] * x[i];
    }
    wild[s] = m > 0 && square > dso_estimator_limits[s * (DSO_ESTIMATOR_NY + 1) + m];
    if (m && !wild[s] && !dso_estimator_foot[s]) nats[s] = 0.5 * ((1 - 1 / 9.0) * square - m * log(9.0));
    any = any || wild[s];
    slips = slips || (wild[s] && dso_estimator_foot[s]);
  }
  return any;
}

/* One linear update of a covariance by innovations, in `to`; missing channels change nothing. */
static inline int dso_estimator_linear(dso_estimator *e, const double *p, const double *h, const double *off, const int *let,
                                       dso_estimator_change *to) {
  const int n = DSO_ESTIMATOR_SIZE_K, ny = DSO_ESTIMATOR_NY;
  double r[DSO_ESTIMATOR_NY];
  int i, j;
  for (i = 0; i < ny; i++) r[i] = let[i] ? dso_estimator_noise[i] : 1.0;
  for (i = 0; i < ny * n; i++) e->tried[i] = let[i / n] ? h[i] : 0.0;
  dso_estimator_matrix(e->tried, 0, p, 0, ny, n, n, e->cross);
  dso_estimator_matrix(e->cross, 0, e->tried, 1, ny, n, ny, e->spread);
  for (i = 0; i < ny; i++) e->spread[i * ny + i] += r[i];
  if (!dso_estimator_factor(e->spread, ny)) return 0;
  for (j = 0; j < n; j++) {
    double column[DSO_ESTIMATOR_NY];
    for (i = 0; i < ny; i++) column[i] = e->cross[i * n + j];
    dso_estimator_solve(e->spread, ny, column);
    for (i = 0; i < ny; i++) e->gain[j * ny + i] = column[i];
  }
  dso_estimator_matrix(e->gain, 0, e->tried, 0, n, ny, n, e->b);
  for (i = 0; i < n * n; i++) e->b[i] = (i % (n + 1) == 0 ? 1.0 : 0.0) - e->b[i];
  dso_estimator_copy(p, n * n, to->covariance);
  dso_estimator_carry(e, e->b, to->covariance);
  for (i = 0; i < n; i++) {
    double sum = 0.0;
    for (j = 0; j < ny; j++) sum += e->gain[i * ny + j] * (let[j] ? off[j] : 0.0);
    to->change[i] = sum;
    for (j = 0; j < n; j++) {
      int c;
      for (c = 0; c < ny; c++) to->covariance[i * n + j] += e->gain[i * ny + c] * r[c] * e->gain[j * ny + c];
    }
  }
  dso_estimator_even(to->covariance);
  return 1;
}

static inline int dso_estimator_shift(const dso_estimator_belief *from, const double *change, dso_estimator_belief *to) {
  double moved[DSO_ESTIMATOR_WIDTH];
  int i;
  dso_estimator_move(from->state, change, moved);
  dso_estimator_copy(moved, DSO_ESTIMATOR_WIDTH, to->state);
  dso_estimator_copy(from->offset, DSO_ESTIMATOR_NY, to->offset);
  for (i = 0; i < DSO_ESTIMATOR_BIASES; i++) to->offset[dso_estimator_biases[i]] += change[DSO_ESTIMATOR_TANGENT + i];
  return dso_estimator_below(to->state, DSO_ESTIMATOR_WIDTH, 1e10);
}

static inline double dso_estimator_cost(const dso_estimator *e, const double *change, const double *off, const int *let) {
  double sum = 0.0;
  int i, j;
  for (i = 0; i < DSO_ESTIMATOR_SIZE_K; i++)
    for (j = 0; j < DSO_ESTIMATOR_SIZE_K; j++) sum += change[i] * e->weight[i * DSO_ESTIMATOR_SIZE_K + j] * change[j];
  for (i = 0; i < DSO_ESTIMATOR_NY; i++) sum += let[i] ? off[i] * off[i] / dso_estimator_noise[i] : 0.0;
  return 0.5 * sum;
}

/* Start i of the search, 0 if there is no such one, -1 if it is not needed. */
static inline int dso_estimator_start(const double *p, int i, double *change) {
  const int n = DSO_ESTIMATOR_SIZE_K;
  static const double angles[4] = {-2.4, -1.2, 1.2, 2.4};
  int k, t, v;
  for (k = 0; k < n; k++) change[k] = 0.0;
  if (i-- == 0) return 1;
  if (i < 23 * DSO_ESTIMATOR_TURNS) {
    double widest = 0.0;
    v = dso_estimator_turns[i / 23];
    for (k = 0; k < 3; k++) widest = fmax(widest, sqrt(p[(v + k) * (n + 1)]));
    for (k = 0; k < 3; k++) change[v + k] = dso_estimator_around[3 * (i % 23) + k];
    return widest > 0.9 ? 1 : -1;
  }
  t = i - 23 * DSO_ESTIMATOR_TURNS;
  if (t >= 4 * DSO_ESTIMATOR_HINGES) return 0;
  v = dso_estimator_hinges[t / 4];
  change[v] = angles[t % 4];
  return sqrt(p[v * (n + 1)]) > 0.9 ? 1 : -1;
}

/* The most probable change of `at` given prior and readings, by Gauss-Newton steps from several starts, in e->best. */
static inline int dso_estimator_search(dso_estimator *e, const dso_estimator_belief *at, const double *y, const double *ctrl,
                                       const int *let) {
  const int n = DSO_ESTIMATOR_SIZE_K, ny = DSO_ESTIMATOR_NY;
  double change[DSO_ESTIMATOR_SIZE_K], next[DSO_ESTIMATOR_SIZE_K], reading[DSO_ESTIMATOR_NY], off[DSO_ESTIMATOR_NY];
  double off_next[DSO_ESTIMATOR_NY], lower = 0.0;
  int i, j, start, step, some = 0, needed;
  dso_estimator_copy(at->covariance, n * n, e->a);
  if (!dso_estimator_factor(e->a, n)) return 0;
  for (i = 0; i < n; i++) { /* the inverse of the prior's covariance */
    double column[DSO_ESTIMATOR_SIZE_K];
    for (j = 0; j < n; j++) column[j] = j == i;
    dso_estimator_solve(e->a, n, column);
    for (j = 0; j < n; j++) e->weight[j * n + i] = column[j];
  }
  for (start = 0; (needed = dso_estimator_start(at->covariance, start, change)) != 0; start++) {
    double value;
    if (needed < 0) continue;
    if (!dso_estimator_shift(at, change, &e->placed)) return 0;
    dso_estimator_compare(e, &e->placed, y, ctrl, reading, off, e->h);
    value = dso_estimator_cost(e, change, off, let);
    for (step = 0; step < 8; step++) {
      double share = 1.0, fall;
      dso_estimator_jacobian(change, e->a);
      dso_estimator_matrix(e->h, 0, e->a, 0, ny, n, n, e->slope);
      for (i = 0; i < ny; i++) {
        off_next[i] = off[i];
        for (j = 0; j < n; j++) off_next[i] += e->slope[i * n + j] * change[j];
      }
      if (!dso_estimator_linear(e, at->covariance, e->slope, off_next, let, &e->found)) return 0;
      while (share > 0.05) {
        for (i = 0; i < n; i++) next[i] = change[i] + share * (e->found.change[i] - change[i]);
        if (!dso_estimator_shift(at, next, &e->placed)) return 0;
        dso_estimator_compare(e, &e->placed, y, ctrl, reading, off_next, e->slope);
        lower = dso_estimator_cost(e, next, off_next, let);
        if (lower <= value) break;
        share /= 3;
      }
      if (!(share > 0.05)) break;
      fall = value - lower;
      value = lower;
      dso_estimator_copy(next, n, change);
      dso_estimator_copy(off_next, ny, off);
      dso_estimator_copy(e->slope, ny * n, e->h);
      if (fall < 1e-6 * fmax(value, 1.0)) break;
    }
    if (!some || value < e->best.cost - 1e-3) {
      some = 1;
      dso_estimator_jacobian(change, e->a);
      dso_estimator_matrix(e->h, 0, e->a, 0, ny, n, n, e->slope);
      if (!dso_estimator_linear(e, at->covariance, e->slope, off, let, &e->best)) return 0;
      dso_estimator_carry(e, e->a, e->best.covariance);
      dso_estimator_copy(change, n, e->best.change);
      e->best.cost = value;
    }
  }
  return 1;
}

/* `at` corrected by readings, in place; the told numbers in e, which sensors were wild, and what the others tell of jumps. */
static inline int dso_estimator_correct(dso_estimator *e, dso_estimator_belief *at, const double *y, const double *ctrl, int *wild,
                                        double *nats) {
  const int n = DSO_ESTIMATOR_SIZE_K, ny = DSO_ESTIMATOR_NY;
  double off[DSO_ESTIMATOR_NY], reading[DSO_ESTIMATOR_NY], spread[DSO_ESTIMATOR_NY * DSO_ESTIMATOR_NY];
  int seen[DSO_ESTIMATOR_NY], let[DSO_ESTIMATOR_NY], i, q, any = 0, wide = 0, found = 0;
  for (i = 0; i < ny; i++) seen[i] = isfinite(y[i]) ? 1 : 0;
  for (q = 0; q < DSO_ESTIMATOR_QUATERNIONS; q++) {
    const int *place = dso_estimator_quaternion + 4 * q;
    const int whole = seen[place[0]] && seen[place[1]] && seen[place[2]] && seen[place[3]];
    for (i = 0; i < 4; i++) seen[place[i]] = whole && i < 3;
  }
  dso_estimator_compare(e, at, y, ctrl, reading, off, e->h);
  if (!dso_estimator_below(reading, ny, INFINITY)) return DSO_ESTIMATOR_BLEW_UP;
  dso_estimator_spread(e, at->covariance, e->h, spread);
  for (i = 0; i < ny; i++) {
    e->predicted[i] = reading[i];
    e->innovation[i] = y[i] - reading[i];
    e->std[i] = sqrt(spread[i * ny + i]);
    any = any || seen[i];
  }
  for (q = 0; q < DSO_ESTIMATOR_QUATERNIONS; q++) { /* an angle of a radian moves the channels of a quaternion by at most a half */
    const int *place = dso_estimator_quaternion + 4 * q;
    double mean = 0.0;
    for (i = 0; i < 3; i++) mean += spread[place[i] * (ny + 1)] / 3;
    for (i = 0; i < 4; i++) e->std[place[i]] = sqrt(mean / 4);
  }
  for (i = 0; i < DSO_ESTIMATOR_SENSORS; i++) nats[i] = wild[i] = 0;
  if (!any) return DSO_ESTIMATOR_OK;
  any = dso_estimator_judge(off, spread, seen, wild, nats);
  for (i = 0; i < ny; i++) let[i] = seen[i] && !wild[dso_estimator_member[i]];
  if (!dso_estimator_linear(e, at->covariance, e->h, off, let, &e->done)) return DSO_ESTIMATOR_WILD;
  if (DSO_ESTIMATOR_BIASES) dso_estimator_carry(e, e->b, at->jumped);
  for (i = 0; i < DSO_ESTIMATOR_ANGLES; i++) {
    const double before = at->covariance[dso_estimator_angles[i] * (n + 1)];
    wide = wide || before >= 0.3 * 0.3;
    found = found || (before > 0.3 * 0.3 && e->done.covariance[dso_estimator_angles[i] * (n + 1)] < 0.5 * 0.5 * before);
  }
  if (wide && (found || any)) { /* one linearisation does not do: the gate judges what is left at the most probable state */
    for (i = 0; i < DSO_ESTIMATOR_SENSORS; i++) wild[i] = 0;
    if (!dso_estimator_search(e, at, y, ctrl, seen)) return DSO_ESTIMATOR_WILD;
    dso_estimator_shift(at, e->best.change, &e->placed);
    dso_estimator_compare(e, &e->placed, y, ctrl, reading, off, e->h);
    dso_estimator_spread(e, e->best.covariance, e->h, spread);
    any = dso_estimator_judge(off, spread, seen, wild, nats);
    for (i = 0; i < DSO_ESTIMATOR_SENSORS; i++) nats[i] = 0.0;
    for (i = 0; i < ny; i++) let[i] = seen[i] && !wild[dso_estimator_member[i]];
    if (any && !dso_estimator_search(e, at, y, ctrl, let)) return DSO_ESTIMATOR_WILD;
    dso_estimator_copy(e->best.change, n, e->done.change);
    dso_estimator_copy(e->best.covariance, n * n, e->done.covariance);
  } else {
    for (i = 0; i < 3 * DSO_ESTIMATOR_TURNS; i++)
      if (fabs(e->done.change[dso_estimator_turns[i / 3] + i % 3]) > 0.02) {
        dso_estimator_jacobian(e->done.change, e->a);
        dso_estimator_carry(e, e->a, e->done.covariance);
        break;
      }
  }
  if (!dso_estimator_shift(at, e->done.change, at)) return DSO_ESTIMATOR_WILD;
  dso_estimator_copy(e->done.covariance, n * n, at->covariance);
  for (i = 0; i < ny; i++)
    if (seen[i] && !let[i]) e->innovation[i] = NAN;
  return DSO_ESTIMATOR_OK;
}

/* Count the wild readings of an update. 3 if ten in a row of one sensor show that the filter is lost. Where a bias drifts, biases
   are given up first: 1 if that of the wild sensor jumps, 2 if one has jumped in the last second and has misled the state. */
static inline int dso_estimator_count(dso_estimator *e, const double *y, const int *wild, const double *nats) {
  const int most = DSO_ESTIMATOR_BIASES ? 2 : 1;
  int i, s, any = 0, lost = 0;
  for (s = 0; DSO_ESTIMATOR_BIASES && s < DSO_ESTIMATOR_SENSORS; s++) {
    e->surprise[s] = e->surprise[s] + nats[s] > 0 ? e->surprise[s] + nats[s] : 0.0;
    if (e->surprise[s] > 30.0) {
      e->surprise[s] = 0.0;
      lost = 2;
    }
  }
  for (s = 0; s < DSO_ESTIMATOR_SENSORS; s++) any = any || wild[s];
  if (e->calm && !any) return lost;
  e->calm = 1;
  for (s = 0; s < DSO_ESTIMATOR_SENSORS; s++) {
    int measured = 0, first = 2;
    for (i = 0; i < DSO_ESTIMATOR_BIASES; i++)
      if (dso_estimator_member[dso_estimator_biases[i]] == s) first = 1;
    for (i = 0; i < DSO_ESTIMATOR_NY; i++) measured = measured || (dso_estimator_member[i] == s && isfinite(y[i]));
    e->gated[s] += wild[s];
    e->wild_row[s] = wild[s] ? e->wild_row[s] + 1 : measured ? 0 : e->wild_row[s];
    e->likely_row[s] = measured && !wild[s] ? e->likely_row[s] + 1 : measured ? 0 : e->likely_row[s];
    if (e->likely_row[s] >= 10) e->left[s] = most;
    if (e->wild_row[s] >= 10 && e->left[s] && !dso_estimator_foot[s]) {
      const int restart = e->left[s] > 1 ? first : 3;
      lost = restart > lost ? restart : lost;
      e->left[s] -= 1;
      e->wild_row[s] = 0;
    }
    e->calm = e->calm && e->left[s] == most && !e->wild_row[s];
  }
  return lost;
}

/* The readings of all channels, of what was measured: 0 for the velocity of a foot that stands, else NAN. */
static inline void dso_estimator_complete(const double *readings, double *y) {
  int i;
  for (i = 0; i < DSO_ESTIMATOR_NY; i++) {
    const double value = readings[dso_estimator_source[i]];
    y[i] = isnan(dso_estimator_above[i]) ? value : value > dso_estimator_above[i] || dso_estimator_above[i] == -INFINITY ? 0.0 : NAN;
  }
}

/* model: the one exported beside this header. It and what `init` allocates must live as long as the estimator. */
static inline int dso_estimator_init(dso_estimator *e, mjModel *model) {
  const int told = dso_estimator_prepare(model);
  if (told) return told;
  e->model = model;
  e->data = mj_makeData(model);
  return DSO_ESTIMATOR_OK;
}

static inline void dso_estimator_free(dso_estimator *e) {
  mj_deleteData(e->data);
  e->data = NULL;
}

/* Start around a state, of which the filter takes nothing for certain; NULL is qpos0, rest and no activation. readings: NULL, or
   readings of which those of joint positions and velocities take the place of what is NULL, and positions and velocities correct. */
static inline int dso_estimator_reset(dso_estimator *e, const double *qpos, const double *qvel, const double *act,
                                      const double *readings) {
  double state[DSO_ESTIMATOR_WIDTH], none[DSO_ESTIMATOR_NY], y[DSO_ESTIMATOR_NY], rest[DSO_ESTIMATOR_NU + 1];
  double nats[DSO_ESTIMATOR_SENSORS];
  int i, wild[DSO_ESTIMATOR_SENSORS];
  if (readings) dso_estimator_complete(readings, y);
  dso_estimator_first(e->model, qpos, qvel, act, readings ? y : NULL, state);
  mj_resetData(e->model, e->data);
  for (i = 0; i < DSO_ESTIMATOR_NY; i++) {
    none[i] = 0.0;
    e->predicted[i] = e->innovation[i] = NAN;
    e->std[i] = sqrt(dso_estimator_noise[i]);
    y[i] = readings && dso_estimator_prompt[i] ? y[i] : NAN;
  }
  for (i = 0; i <= DSO_ESTIMATOR_NU; i++) rest[i] = 0.0;
  for (i = 0; i < DSO_ESTIMATOR_SENSORS; i++) {
    e->gated[i] = e->wild_row[i] = e->likely_row[i] = 0;
    e->left[i] = DSO_ESTIMATOR_BIASES ? 2 : 1;
    e->surprise[i] = 0.0;
  }
  e->calm = 1;
  dso_estimator_begin(state, none, &e->now);
  i = readings ? dso_estimator_correct(e, &e->now, y, rest, wild, nats) : DSO_ESTIMATOR_OK;
  dso_estimator_copy(e->now.state, DSO_ESTIMATOR_WIDTH, e->state);
  return i;
}

/* Estimate the state `seconds` later; 0 for an interval of the training. */
static inline int dso_estimator_update(dso_estimator *e, const double *ctrl, const double *readings, double seconds) {
  double y[DSO_ESTIMATOR_NY], nats[DSO_ESTIMATOR_SENSORS];
  int i, told, wild[DSO_ESTIMATOR_SENSORS], again[DSO_ESTIMATOR_SENSORS];
  if (!(seconds >= 0 && seconds <= 3600.0) || !dso_estimator_below(ctrl, DSO_ESTIMATOR_NU, 1e10)) return DSO_ESTIMATOR_BAD_INPUT;
  for (i = 0; i < DSO_ESTIMATOR_READINGS; i++)
    if (fabs(readings[i]) >= 1e10) return DSO_ESTIMATOR_BAD_INPUT;
  dso_estimator_complete(readings, y);
  if (seconds == 0) seconds = DSO_ESTIMATOR_INTERVAL;
  told = dso_estimator_predict(e, ctrl, seconds, &e->ahead);
  if (told) return told;
  {
    int restart;
    e->before = e->ahead;
    told = dso_estimator_correct(e, &e->ahead, y, ctrl, wild, nats);
    if (told) return told;
    restart = dso_estimator_count(e, y, wild, nats);
    if (restart) {
      if (restart == 3) dso_estimator_begin(e->before.state, e->before.offset, &e->ahead);
      else dso_estimator_forget(&e->before, restart, &e->ahead);
      told = dso_estimator_correct(e, &e->ahead, y, ctrl, again, nats);
      if (told) return told;
    }
  }
  e->now = e->ahead;
  dso_estimator_copy(e->now.state, DSO_ESTIMATOR_WIDTH, e->state);
  return DSO_ESTIMATOR_OK;
}

#endif
