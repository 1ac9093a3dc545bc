/* Results, states and their changes, for every estimator. */

#define DSO_ESTIMATOR_OK 0
#define DSO_ESTIMATOR_WRONG_MODEL 1 /* the model has other sizes than the one of the training */

static inline void dso_estimator_copy(const double *from, int count, double *to) {
  int i;
  for (i = 0; i < count; i++) to[i] = from[i];
}

/* Whether all numbers are below a bound; NAN is not. */
static inline int dso_estimator_below(const double *values, int count, double bound) {
  int i;
  for (i = 0; i < count; i++)
    if (!(fabs(values[i]) < bound)) return 0;
  return 1;
}

static inline void dso_estimator_product(const double *p, const double *q, double *out) {
  out[0] = p[0] * q[0] - p[1] * q[1] - p[2] * q[2] - p[3] * q[3];
  out[1] = p[0] * q[1] + p[1] * q[0] + p[2] * q[3] - p[3] * q[2];
  out[2] = p[0] * q[2] - p[1] * q[3] + p[2] * q[0] + p[3] * q[1];
  out[3] = p[0] * q[3] + p[1] * q[2] - p[2] * q[1] + p[3] * q[0];
}

/* quat turned by a rotation vector [rad] in its own frame. */
static inline void dso_estimator_turn(const double *quat, const double *rotation, double *out) {
  double half[3], turn[4], square = 0.0, norm = 0.0, sinc;
  int i;
  for (i = 0; i < 3; i++) {
    half[i] = 0.5 * rotation[i];
    square += half[i] * half[i];
  }
  if (square < 1e-6) {
    turn[0] = 1 - square / 2 * (1 - square / 12);
    sinc = 1 - square / 6 * (1 - square / 20);
  } else {
    turn[0] = cos(sqrt(square));
    sinc = sin(sqrt(square)) / sqrt(square);
  }
  for (i = 0; i < 3; i++) turn[i + 1] = sinc * half[i];
  dso_estimator_product(quat, turn, out);
  for (i = 0; i < 4; i++) norm += out[i] * out[i];
  for (i = 0; i < 4; i++) out[i] /= sqrt(norm);
}

/* The rotation vector of a quaternion, and its length. */
static inline double dso_estimator_rotation(const double *quat, double *vector) {
  const double sign = quat[0] < 0 ? -1.0 : 1.0;
  double square = 0.0, ratio, length = 0.0;
  int i;
  for (i = 1; i < 4; i++) square += quat[i] * quat[i];
  ratio = square < 1e-6 ? 2 + square / 3 : 2 * atan2(sqrt(square), sign * quat[0]) / sqrt(square);
  for (i = 0; i < 3; i++) {
    vector[i] = sign * quat[i + 1] * ratio;
    length += vector[i] * vector[i];
  }
  return sqrt(length + 1e-30);
}

/* `state` moved by `change` to `moved`: unit quaternions, and no joint further beyond its limits than it was. */
static inline void dso_estimator_move(const double *state, const double *change, double *moved) {
  int i, k;
  for (i = 0; i < DSO_ESTIMATOR_JOINTS; i++) {
    const int kind = dso_estimator_joint[3 * i];
    int q = dso_estimator_joint[3 * i + 1], v = dso_estimator_joint[3 * i + 2];
    const double most = dso_estimator_ball[i];
    if (kind == 2 || kind == 3) {
      const double low = dso_estimator_low[q], high = dso_estimator_high[q], at = state[q] + change[v];
      const double least = state[q] < low ? state[q] : low, largest = state[q] > high ? state[q] : high;
      moved[q] = at < least ? least : at > largest ? largest : at;
      continue;
    }
    if (kind == 0) {
      for (k = 0; k < 3; k++) moved[q + k] = state[q + k] + change[v + k];
      q += 3;
      v += 3;
    }
    dso_estimator_turn(state + q, change + v, moved + q);
    if (most >= 0) {
      static const double identity[4] = {1.0, 0.0, 0.0, 0.0};
      double vector[3], before[3];
      const double angle = dso_estimator_rotation(moved + q, vector), was = dso_estimator_rotation(state + q, before);
      const double limit = was > most ? was : most;
      if (angle > limit) {
        for (k = 0; k < 3; k++) vector[k] *= limit / angle;
        dso_estimator_turn(identity, vector, moved + q);
      }
    }
  }
  for (i = 0; i < DSO_ESTIMATOR_NV + DSO_ESTIMATOR_NA; i++)
    moved[DSO_ESTIMATOR_NQ + i] = state[DSO_ESTIMATOR_NQ + i] + change[DSO_ESTIMATOR_NV + i];
}

/* Whether the model is the one exported beside this header; it then gets the time step of the training. */
static inline int dso_estimator_prepare(mjModel *model) {
  if (model->nq != DSO_ESTIMATOR_NQ || model->nv != DSO_ESTIMATOR_NV || model->na != DSO_ESTIMATOR_NA ||
      model->nu != DSO_ESTIMATOR_NU || model->nsensordata != DSO_ESTIMATOR_NSENSORDATA)
    return DSO_ESTIMATOR_WRONG_MODEL;
  model->opt.timestep = DSO_ESTIMATOR_INTERVAL / DSO_ESTIMATOR_SUBSTEPS;
  model->opt.disableflags |= mjDSBL_AUTORESET;
  return DSO_ESTIMATOR_OK;
}

/* The state (DSO_ESTIMATOR_WIDTH) to start from; what is NULL is qpos0, rest and no activation, or read by a joint's sensor. */
static inline void dso_estimator_first(const mjModel *model, const double *qpos, const double *qvel, const double *act,
                                       const double *readings, double *state) {
  int i;
  for (i = 0; i < DSO_ESTIMATOR_NQ; i++) state[i] = qpos ? qpos[i] : model->qpos0[i];
  for (i = 0; i < DSO_ESTIMATOR_NV; i++) state[DSO_ESTIMATOR_NQ + i] = qvel ? qvel[i] : 0.0;
  for (i = 0; i < DSO_ESTIMATOR_NA; i++) state[DSO_ESTIMATOR_NQ + DSO_ESTIMATOR_NV + i] = act ? act[i] : 0.0;
  for (i = 0; readings && i < DSO_ESTIMATOR_NY; i++) {
    const double value = (readings[i] - dso_estimator_bias[i]) / dso_estimator_scale[i];
    if (isnan(readings[i])) continue;
    if (!qpos && dso_estimator_qpos_of[i] >= 0) state[dso_estimator_qpos_of[i]] = value;
    if (!qvel && dso_estimator_qvel_of[i] >= 0) state[DSO_ESTIMATOR_NQ + dso_estimator_qvel_of[i]] = value;
  }
  mj_normalizeQuat(model, state);
}
