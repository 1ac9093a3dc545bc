/* How the numbers above estimate. C99 and MuJoCo's C API.

   mjModel *model = mj_loadXML(DSO_ESTIMATOR_MODEL, NULL, error, sizeof error);
   dso_estimator estimator;
   dso_estimator_init(&estimator, model);          it sets the model's time step; the model is not to be used elsewhere
   dso_estimator_reset(&estimator, qpos, qvel, act, NULL);
   every DSO_ESTIMATOR_INTERVAL seconds:
     dso_estimator_update(&estimator, ctrl, readings, 0);      the estimate: estimator.state = qpos, qvel, act
   dso_estimator_free(&estimator);

   ctrl is constant during the interval, readings are those at its end, NAN where nothing was measured, in the order of
   dso_estimator_channels. Memory is allocated in `init` only. Two threads must not use the same estimator at once. */

#define DSO_ESTIMATOR_BAD_INPUT 2   /* a control is not finite, a reading is infinite, or the number of steps is negative */
#define DSO_ESTIMATOR_BLEW_UP 3     /* the prediction diverged */
#define DSO_ESTIMATOR_WILD 4        /* a reading that the filter would not stand; give NAN instead, or reset */
/* After any of these the estimator is as before. */

#define DSO_ESTIMATOR_SIZE(n) ((n) > 0 ? (n) : 1)
#define DSO_ESTIMATOR_WIDTH (DSO_ESTIMATOR_NQ + DSO_ESTIMATOR_NV + DSO_ESTIMATOR_NA)
#define DSO_ESTIMATOR_TANGENT (2 * DSO_ESTIMATOR_NV + DSO_ESTIMATOR_NA)
#define DSO_ESTIMATOR_INPUTS (2 * DSO_ESTIMATOR_NY + DSO_ESTIMATOR_NF)

typedef struct {
  mjModel *model;
  mjData *data;
  double state[DSO_ESTIMATOR_WIDTH];        /* qpos, qvel, act */
  double predicted[DSO_ESTIMATOR_NY];       /* readings predicted before the measurement */
  double innovation[DSO_ESTIMATOR_NY];      /* measurement minus prediction, NAN where missing */
  double std[DSO_ESTIMATOR_NY];             /* learned standard deviation of the innovations */
  int gated[DSO_ESTIMATOR_SENSORS];         /* by sensor, readings that the gate has shut out */
  double memory[DSO_ESTIMATOR_SIZE(DSO_ESTIMATOR_MEMORY)];
  int gate_row[DSO_ESTIMATOR_SENSORS], gate_open[DSO_ESTIMATOR_SENSORS];
  int past_size;                            /* of late sensors: times since the reset and readings, oldest first */
  double past_time[DSO_ESTIMATOR_PAST];
  double past[DSO_ESTIMATOR_PAST][DSO_ESTIMATOR_NY];
} dso_estimator;

/* out[rows] += matrix[rows][columns] in[columns] */
static inline void dso_estimator_times(const double *matrix, int rows, int columns, const double *in, double *out) {
  int i, j;
  for (i = 0; i < rows; i++) {
    double sum = 0.0;
    for (j = 0; j < columns; j++) sum += matrix[i * columns + j] * in[j];
    out[i] += sum;
  }
}

static inline void dso_estimator_place(dso_estimator *e, const double *state) {
  dso_estimator_copy(state, DSO_ESTIMATOR_NQ, e->data->qpos);
  dso_estimator_copy(state + DSO_ESTIMATOR_NQ, DSO_ESTIMATOR_NV, e->data->qvel);
  if (DSO_ESTIMATOR_NA) dso_estimator_copy(state + DSO_ESTIMATOR_NQ + DSO_ESTIMATOR_NV, DSO_ESTIMATOR_NA, e->data->act);
}

static inline void dso_estimator_taken(const dso_estimator *e, double *state) {
  dso_estimator_copy(e->data->qpos, DSO_ESTIMATOR_NQ, state);
  dso_estimator_copy(e->data->qvel, DSO_ESTIMATOR_NV, state + DSO_ESTIMATOR_NQ);
  if (DSO_ESTIMATOR_NA) dso_estimator_copy(e->data->act, DSO_ESTIMATOR_NA, state + DSO_ESTIMATOR_NQ + DSO_ESTIMATOR_NV);
}

/* Readings of the channels' sensors in the state of `data`. */
static inline void dso_estimator_read(dso_estimator *e, double *reading) {
  int i;
  if (DSO_ESTIMATOR_STAGE <= 2)
    mj_step1(e->model, e->data);
  else
    mj_forward(e->model, e->data);
  for (i = 0; i < DSO_ESTIMATOR_NY; i++) reading[i] = e->data->sensordata[dso_estimator_sensordata[i]];
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

/* Start from a state; NULL is qpos0, rest and no activation. readings: NULL, or readings of which those of joint positions and
   velocities take the place of what is NULL. */
static inline void dso_estimator_reset(dso_estimator *e, const double *qpos, const double *qvel, const double *act,
                                       const double *readings) {
  int i;
  double *state = e->state;
  dso_estimator_first(e->model, qpos, qvel, act, readings, state);
  mj_resetData(e->model, e->data);
  for (i = 0; i < DSO_ESTIMATOR_MEMORY; i++) e->memory[i] = 0.0;
  for (i = 0; i < DSO_ESTIMATOR_SENSORS; i++) e->gated[i] = e->gate_row[i] = e->gate_open[i] = 0;
  e->past_size = 0;
  if (DSO_ESTIMATOR_LATE) {
    dso_estimator_place(e, state);
    dso_estimator_read(e, e->past[0]);
    e->past_time[0] = 0.0;
    e->past_size = 1;
  }
  for (i = 0; i < DSO_ESTIMATOR_NY; i++) {
    e->predicted[i] = e->innovation[i] = NAN;
    e->std[i] = dso_estimator_sigma[i];
  }
}

/* What channel c showed `late` seconds before now, when it reads `reading`. */
static inline double dso_estimator_shown(const dso_estimator *e, int c, double at, double now, double reading) {
  int i = 0;
  if (at <= e->past_time[0]) return e->past[0][c];
  if (at >= now) return reading;
  while (i + 1 < e->past_size && e->past_time[i + 1] <= at) i++;
  {
    const int last = i + 1 == e->past_size;
    const double t1 = last ? now : e->past_time[i + 1], y1 = last ? reading : e->past[i + 1][c];
    return e->past[i][c] + (y1 - e->past[i][c]) / (t1 - e->past_time[i]) * (at - e->past_time[i]);
  }
}

static inline void dso_estimator_features(const double *state, double *features) {
  int i;
  for (i = 0; i < DSO_ESTIMATOR_SQUASHED; i++) {
    const int at = dso_estimator_squashed[i];
    *features++ = tanh((state[at] - dso_estimator_centre[at]) / dso_estimator_state_scale[at]);
  }
  for (i = 0; i < DSO_ESTIMATOR_ANGLES; i++) *features++ = sin(state[dso_estimator_angles[i]]);
  for (i = 0; i < DSO_ESTIMATOR_ANGLES; i++) *features++ = cos(state[dso_estimator_angles[i]]);
  for (i = 0; i < DSO_ESTIMATOR_RAW; i++) *features++ = state[dso_estimator_raw[i]];
}

/* The corrector: whitened change of the state (DSO_ESTIMATOR_TANGENT), and the next memory. in: innovation, seen, features. */
static inline void dso_estimator_correct(const double *memory, const double *in, double *change, double *next) {
  const double *w = dso_estimator_weights;
  int i;
  for (i = 0; i < DSO_ESTIMATOR_TANGENT; i++) change[i] = 0.0;
  dso_estimator_times(w, DSO_ESTIMATOR_TANGENT, DSO_ESTIMATOR_NY, in, change);
  w += DSO_ESTIMATOR_TANGENT * DSO_ESTIMATOR_NY;
#if DSO_ESTIMATOR_LINEAR
  {
    double slope[DSO_ESTIMATOR_TANGENT * DSO_ESTIMATOR_NY];
    for (i = 0; i < DSO_ESTIMATOR_TANGENT * DSO_ESTIMATOR_NY; i++) slope[i] = 0.0;
    dso_estimator_times(w, DSO_ESTIMATOR_TANGENT * DSO_ESTIMATOR_NY, DSO_ESTIMATOR_NF + DSO_ESTIMATOR_NY, in + DSO_ESTIMATOR_NY,
                        slope);
    dso_estimator_times(slope, DSO_ESTIMATOR_TANGENT, DSO_ESTIMATOR_NY, in, change);
  }
#elif DSO_ESTIMATOR_MLP
  {
    double hidden[DSO_ESTIMATOR_UNITS];
    const int h = DSO_ESTIMATOR_UNITS;
    dso_estimator_copy(w + h * DSO_ESTIMATOR_INPUTS, h, hidden);
    dso_estimator_times(w, h, DSO_ESTIMATOR_INPUTS, in, hidden);
    for (i = 0; i < h; i++) hidden[i] = tanh(hidden[i]);
    dso_estimator_times(w + h * DSO_ESTIMATOR_INPUTS + h, DSO_ESTIMATOR_TANGENT, h, hidden, change);
  }
#elif DSO_ESTIMATOR_MEMORY > 0
  {
    double given[3 * DSO_ESTIMATOR_UNITS], kept[3 * DSO_ESTIMATOR_UNITS];
    const int h = DSO_ESTIMATOR_UNITS;
    const double *recurrent = w + 3 * h * DSO_ESTIMATOR_INPUTS, *bias = recurrent + 3 * h * h, *output = bias + 3 * h;
    dso_estimator_copy(bias, 3 * h, given);
    for (i = 0; i < 3 * h; i++) kept[i] = 0.0;
    dso_estimator_times(w, 3 * h, DSO_ESTIMATOR_INPUTS, in, given);
    dso_estimator_times(recurrent, 3 * h, h, memory, kept);
    for (i = 0; i < h; i++) {
      const double update = 0.5 + 0.5 * tanh(0.5 * (given[i] + kept[i]));
      const double reset = 0.5 + 0.5 * tanh(0.5 * (given[h + i] + kept[h + i]));
      next[i] = (1 - update) * memory[i] + update * tanh(given[2 * h + i] + reset * kept[2 * h + i]);
    }
    dso_estimator_times(output, DSO_ESTIMATOR_TANGENT, h, next, change);
  }
#endif
  (void)memory;
  (void)next;
  (void)w;
}

/* By sensor, whether it is as likely as the gate asks for, and whether a channel of it was measured. */
static inline void dso_estimator_likely(const double *white, int *likely, int *measured) {
  double square[DSO_ESTIMATOR_SENSORS];
  int i;
  for (i = 0; i < DSO_ESTIMATOR_SENSORS; i++) {
    square[i] = 0.0;
    measured[i] = 0;
  }
  for (i = 0; i < DSO_ESTIMATOR_NY; i++)
    if (isfinite(white[i])) {
      square[dso_estimator_member[i]] += white[i] * white[i];
      measured[dso_estimator_member[i]] += 1;
    }
  for (i = 0; i < DSO_ESTIMATOR_SENSORS; i++) likely[i] = square[i] <= dso_estimator_limits[measured[i]];
}

/* Whether the next updates can be predicted from `state`. */
static inline int dso_estimator_stands(dso_estimator *e, const double *state) {
  double reached[DSO_ESTIMATOR_WIDTH];
  int i;
  if (!dso_estimator_below(state, DSO_ESTIMATOR_WIDTH, 1e6)) return 0;
  dso_estimator_place(e, state);
  for (i = 0; i < 10 * DSO_ESTIMATOR_SUBSTEPS; i++) mj_step(e->model, e->data);
  dso_estimator_taken(e, reached);
  if (dso_estimator_below(reached, DSO_ESTIMATOR_WIDTH, 1e6)) return 1;
  mj_resetData(e->model, e->data);
  return 0;
}

/* Estimate the state `steps` time steps later; 0 for those of an interval of the training. */
static inline int dso_estimator_update(dso_estimator *e, const double *ctrl, const double *readings, int steps) {
  double forecast[DSO_ESTIMATOR_WIDTH], state[DSO_ESTIMATOR_WIDTH], reading[DSO_ESTIMATOR_NY], predicted[DSO_ESTIMATOR_NY];
  double y[DSO_ESTIMATOR_NY], white[DSO_ESTIMATOR_NY], std[DSO_ESTIMATOR_NY], in[DSO_ESTIMATOR_INPUTS];
  double change[DSO_ESTIMATOR_SIZE(DSO_ESTIMATOR_TANGENT)], next[DSO_ESTIMATOR_SIZE(DSO_ESTIMATOR_MEMORY)], now = 0.0;
  double largest = 0.0;
  int likely[DSO_ESTIMATOR_SENSORS], measured[DSO_ESTIMATOR_SENSORS], i, k, some = 0;
  if (steps < 0 || !dso_estimator_below(ctrl, DSO_ESTIMATOR_NU, 1e10)) return DSO_ESTIMATOR_BAD_INPUT;
  for (i = 0; i < DSO_ESTIMATOR_NY; i++)
    if (fabs(readings[i]) >= 1e10) return DSO_ESTIMATOR_BAD_INPUT;
  if (steps == 0) steps = DSO_ESTIMATOR_SUBSTEPS;
  dso_estimator_place(e, e->state);
  dso_estimator_copy(ctrl, DSO_ESTIMATOR_NU, e->data->ctrl);
  for (i = 0; i < steps; i++) mj_step(e->model, e->data);
  dso_estimator_read(e, reading);
  dso_estimator_taken(e, forecast);
  if (DSO_ESTIMATOR_LATE) {
    now = e->past_time[e->past_size - 1] + steps * e->model->opt.timestep;
    for (i = 0; i < DSO_ESTIMATOR_NY; i++) {
      const double shown = dso_estimator_shown(e, i, now - dso_estimator_delay[i], now, reading[i]);
      predicted[i] = shown * dso_estimator_scale[i] + dso_estimator_bias[i];
    }
  } else {
    for (i = 0; i < DSO_ESTIMATOR_NY; i++) predicted[i] = reading[i] * dso_estimator_scale[i] + dso_estimator_bias[i];
  }
  if (!dso_estimator_below(forecast, DSO_ESTIMATOR_WIDTH, 1e10) || !dso_estimator_below(predicted, DSO_ESTIMATOR_NY, INFINITY)) {
    mj_resetData(e->model, e->data);
    return DSO_ESTIMATOR_BLEW_UP;
  }
  dso_estimator_copy(readings, DSO_ESTIMATOR_NY, y);
  for (i = 0; i < DSO_ESTIMATOR_QUATERNIONS; i++) { /* a quaternion and its negative are one rotation */
    const int *place = dso_estimator_quaternion + 4 * i;
    double agreement = 0.0;
    for (k = 0; k < 4; k++) agreement += isfinite(y[place[k]]) ? predicted[place[k]] * y[place[k]] : 0.0;
    for (k = 0; k < 4; k++) y[place[k]] = agreement < 0 ? -y[place[k]] : y[place[k]];
  }
  dso_estimator_features(forecast, in + 2 * DSO_ESTIMATOR_NY);
  for (i = 0; i < DSO_ESTIMATOR_NY; i++) {
    double log_ratio = 0.0;
    dso_estimator_times(dso_estimator_noise + i * DSO_ESTIMATOR_NF, 1, DSO_ESTIMATOR_NF, in + 2 * DSO_ESTIMATOR_NY, &log_ratio);
    std[i] = dso_estimator_sigma[i] * exp(log_ratio);
    white[i] = (y[i] - predicted[i]) / std[i];
  }
  dso_estimator_likely(white, likely, measured);
  for (i = 0; i < DSO_ESTIMATOR_NY; i++) {
    if (DSO_ESTIMATOR_GATE && !likely[dso_estimator_member[i]] && !e->gate_open[dso_estimator_member[i]]) y[i] = NAN;
    in[i] = isnan(y[i]) ? 0.0 : (y[i] - predicted[i]) / dso_estimator_innovation[i];
    in[DSO_ESTIMATOR_NY + i] = isnan(y[i]) ? 0.0 : 1.0;
    some = some || !isnan(y[i]);
    if (fabs(in[i]) > largest) largest = fabs(in[i]);
  }
  dso_estimator_correct(e->memory, in, change, next);
  for (i = 0; i < DSO_ESTIMATOR_TANGENT; i++) change[i] = some ? change[i] * dso_estimator_change[i] : 0.0;
  dso_estimator_move(forecast, change, state);
  if (!dso_estimator_below(state, DSO_ESTIMATOR_WIDTH, INFINITY) || (largest > 100.0 && !dso_estimator_stands(e, state)))
    return DSO_ESTIMATOR_WILD;
  dso_estimator_copy(state, DSO_ESTIMATOR_WIDTH, e->state);
  if (some) dso_estimator_copy(next, DSO_ESTIMATOR_MEMORY, e->memory);
  for (i = 0; DSO_ESTIMATOR_GATE && i < DSO_ESTIMATOR_SENSORS; i++) {
    if (!likely[i] && !e->gate_open[i]) e->gated[i] += 1;
    if (measured[i]) e->gate_row[i] = likely[i] == e->gate_open[i] ? e->gate_row[i] + 1 : 0;
    if (e->gate_row[i] >= DSO_ESTIMATOR_PATIENCE) {
      e->gate_open[i] = !e->gate_open[i];
      e->gate_row[i] = 0;
    }
  }
  if (DSO_ESTIMATOR_LATE) {
    int drop = 0, rows;
    if (e->past_size < DSO_ESTIMATOR_PAST) e->past_size += 1;
    rows = e->past_size;
    dso_estimator_place(e, e->state);
    dso_estimator_read(e, e->past[rows - 1]);
    e->past_time[rows - 1] = now;
    while (rows - drop > 2 && e->past_time[drop + 1] < now - DSO_ESTIMATOR_LATE_MOST) drop++;
    for (i = drop; i < rows && drop; i++) {
      e->past_time[i - drop] = e->past_time[i];
      dso_estimator_copy(e->past[i], DSO_ESTIMATOR_NY, e->past[i - drop]);
    }
    e->past_size = rows - drop;
  }
  for (i = 0; i < DSO_ESTIMATOR_NY; i++) {
    e->predicted[i] = predicted[i];
    e->innovation[i] = y[i] - predicted[i];
    e->std[i] = std[i];
  }
  return DSO_ESTIMATOR_OK;
}

#endif
