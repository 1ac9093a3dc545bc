/* How the numbers above decide. C99, double precision, no allocation.

   dso_policy policy;
   dso_policy_reset(&policy, NULL);
   every DSO_POLICY_PERIOD seconds:
     dso_policy_observe(qpos, qvel, act, seen);     a policy that sees sensors: fill seen in the order of dso_policy_sees
     dso_policy_act(&policy, seen, ctrl);

   A dso_policy is the whole memory: a copy of it is a snapshot. Two threads must not use the same one at once. */

#define DSO_POLICY_OK 0
#define DSO_POLICY_NOT_FINITE 1 /* an input or the action is not finite; the policy is unchanged */

#define DSO_POLICY_SIZE(n) ((n) > 0 ? (n) : 1)

typedef struct {
  double task[DSO_POLICY_SIZE(DSO_POLICY_TASKS)];
  double memory[DSO_POLICY_SIZE(DSO_POLICY_MEMORY)];
  double queue[DSO_POLICY_SIZE(DSO_POLICY_DELAY * DSO_POLICY_NU)]; /* delayed actions, oldest first */
  double ctrl[DSO_POLICY_NU];                                        /* the last control, home at first */
  double steps;                                                      /* control steps since the reset */
} dso_policy;

/* The control (DSO_POLICY_NU) of an action, without the limit of its rate. */
static inline void dso_policy_squash(const double *action, double *ctrl) {
  int i;
  for (i = 0; i < DSO_POLICY_NU; i++) {
    const double z = dso_policy_shift[i] + dso_policy_gain[i] * action[i];
    ctrl[i] = dso_policy_limited[i] ? dso_policy_middle[i] + dso_policy_half[i] * tanh(z) : z;
  }
}

/* Start an episode. task: DSO_POLICY_TASKS numbers, or NULL for those in dso_policy_task_first. */
static inline void dso_policy_reset(dso_policy *policy, const double *task) {
  int i;
  for (i = 0; i < DSO_POLICY_TASKS; i++) policy->task[i] = task ? task[i] : dso_policy_task_first[i];
  for (i = 0; i < DSO_POLICY_MEMORY; i++) policy->memory[i] = 0.0;
  for (i = 0; i < DSO_POLICY_DELAY * DSO_POLICY_NU; i++) policy->queue[i] = 0.0;
  policy->steps = 0.0;
  for (i = 0; i < DSO_POLICY_NU; i++) policy->ctrl[i] = 0.0;
  dso_policy_squash(policy->ctrl, policy->ctrl);
}

#if DSO_POLICY_SEES_STATE
/* What the policy sees of a state: qpos (DSO_POLICY_NQ), qvel (DSO_POLICY_NV), act (DSO_POLICY_NA, may be NULL if that is 0). */
static inline void dso_policy_observe(const double *qpos, const double *qvel, const double *act, double *seen) {
  int i;
  for (i = 0; i < DSO_POLICY_PLAIN; i++) *seen++ = qpos[dso_policy_plain[i]];
  for (i = 0; i < DSO_POLICY_TURNING; i++) *seen++ = sin(qpos[dso_policy_turning[i]]);
  for (i = 0; i < DSO_POLICY_TURNING; i++) *seen++ = cos(qpos[dso_policy_turning[i]]);
  for (i = 0; i < DSO_POLICY_NV; i++) *seen++ = qvel[i];
  for (i = 0; i < DSO_POLICY_NA; i++) *seen++ = act[i];
}
#endif

/* out[rows] += matrix[rows][columns] in[columns] */
static inline void dso_policy_times(const double *matrix, int rows, int columns, const double *in, double *out) {
  int i, j;
  for (i = 0; i < rows; i++) {
    double sum = 0.0;
    for (j = 0; j < columns; j++) sum += matrix[i * columns + j] * in[j];
    out[i] += sum;
  }
}

static inline void dso_policy_copy(const double *from, int count, double *to) {
  int i;
  for (i = 0; i < count; i++) to[i] = from[i];
}

/* The inputs of the network: normalised observation and tasks, and features of the time [s]. */
static inline void dso_policy_inputs(const dso_policy *policy, const double *seen, double time, double *x) {
  int i;
  for (i = 0; i < DSO_POLICY_SEEN; i++) x[i] = (seen[i] - dso_policy_mean[i]) / dso_policy_spread[i];
  for (i = 0; i < DSO_POLICY_TASKS; i++) {
    double half = (dso_policy_task_high[i] - dso_policy_task_low[i]) / 2;
    double normal = (policy->task[i] - (dso_policy_task_high[i] + dso_policy_task_low[i]) / 2) / (half > 0 ? half : 1.0);
    x[DSO_POLICY_SEEN + i] = (normal - dso_policy_mean[DSO_POLICY_SEEN + i]) / dso_policy_spread[DSO_POLICY_SEEN + i];
  }
  x += DSO_POLICY_SEEN + DSO_POLICY_TASKS;
#if DSO_POLICY_FEATURES > 0
  for (i = 0; i < DSO_POLICY_FEATURES; i++) {
#if DSO_POLICY_CYCLIC
    double phase = 2 * 3.14159265358979323846 * time / DSO_POLICY_CLOCK * (i + 1);
    x[i] = sin(phase);
    x[DSO_POLICY_FEATURES + i] = cos(phase);
#else
    double away = (time - DSO_POLICY_CLOCK * (i + 0.5) / DSO_POLICY_FEATURES) * DSO_POLICY_FEATURES / DSO_POLICY_CLOCK;
    x[i] = exp(-0.5 * away * away);
#endif
  }
#endif
  (void)time;
}

/* The action before squashing, and the next memory. x: DSO_POLICY_INPUTS numbers. */
static inline void dso_policy_decide(const double *x, const double *memory, double *action, double *next) {
  const double *weights = dso_policy_weights;
  int i;
#if DSO_POLICY_MEMORY > 0
  double units[DSO_POLICY_MEMORY];
  const int n = DSO_POLICY_MEMORY, inner = n * DSO_POLICY_INPUTS + n * n + n;
  dso_policy_copy(weights + inner - n, n, units);
  dso_policy_times(weights, n, DSO_POLICY_INPUTS, x, units);
  dso_policy_times(weights + n * DSO_POLICY_INPUTS, n, n, memory, units);
  for (i = 0; i < n; i++) next[i] = tanh(units[i]);
  weights += inner;
#if DSO_POLICY_GATED
  dso_policy_copy(weights + inner - n, n, units);
  dso_policy_times(weights, n, DSO_POLICY_INPUTS, x, units);
  dso_policy_times(weights + n * DSO_POLICY_INPUTS, n, n, memory, units);
  for (i = 0; i < n; i++) {
    double gate = 0.5 + 0.5 * tanh(0.5 * units[i]);
    next[i] = (1.0 - gate) * memory[i] + gate * next[i];
  }
  weights += inner;
#endif
  dso_policy_copy(weights + DSO_POLICY_NU * (n + DSO_POLICY_INPUTS), DSO_POLICY_NU, action);
  dso_policy_times(weights, DSO_POLICY_NU, n, next, action);
  dso_policy_times(weights + DSO_POLICY_NU * n, DSO_POLICY_NU, DSO_POLICY_INPUTS, x, action);
#else
  double one[DSO_POLICY_WIDEST], two[DSO_POLICY_WIDEST];
  int layer;
  dso_policy_copy(x, DSO_POLICY_INPUTS, one);
  for (layer = 0; layer < DSO_POLICY_LAYERS; layer++) {
    const int in = dso_policy_widths[layer], out = dso_policy_widths[layer + 1];
    dso_policy_copy(weights + out * in, out, two);
    dso_policy_times(weights, out, in, one, two);
    weights += out * in + out;
    for (i = 0; i < out; i++) one[i] = layer + 1 < DSO_POLICY_LAYERS ? tanh(two[i]) : two[i];
  }
  dso_policy_copy(one, DSO_POLICY_NU, action);
  (void)memory;
  (void)next;
#endif
}

/* The control of the next control step, `time` [s] after the reset. seen: DSO_POLICY_SEEN numbers. */
static inline int dso_policy_act_at(dso_policy *policy, const double *seen, double time, double *ctrl) {
  double x[DSO_POLICY_SIZE(DSO_POLICY_INPUTS)], action[DSO_POLICY_NU], next[DSO_POLICY_SIZE(DSO_POLICY_MEMORY)];
  int i;
  for (i = 0; i < DSO_POLICY_SEEN; i++)
    if (!isfinite(seen[i])) return DSO_POLICY_NOT_FINITE;
  if (!isfinite(time)) return DSO_POLICY_NOT_FINITE;
  dso_policy_inputs(policy, seen, time, x);
  dso_policy_decide(x, policy->memory, action, next);
  for (i = 0; i < DSO_POLICY_NU; i++)
    if (!isfinite(action[i])) return DSO_POLICY_NOT_FINITE;
  dso_policy_copy(next, DSO_POLICY_MEMORY, policy->memory);
  policy->steps += 1.0;
#if DSO_POLICY_DELAY > 0
  dso_policy_squash(policy->queue, ctrl);
  for (i = 0; i < (DSO_POLICY_DELAY - 1) * DSO_POLICY_NU; i++) policy->queue[i] = policy->queue[i + DSO_POLICY_NU];
  dso_policy_copy(action, DSO_POLICY_NU, policy->queue + (DSO_POLICY_DELAY - 1) * DSO_POLICY_NU);
#else
  dso_policy_squash(action, ctrl);
#endif
#if DSO_POLICY_SLOW
  for (i = 0; i < DSO_POLICY_NU; i++) {
    const double change = ctrl[i] - policy->ctrl[i], most = dso_policy_step[i];
    ctrl[i] = policy->ctrl[i] + (change > most ? most : change < -most ? -most : change);
  }
#endif
  dso_policy_copy(ctrl, DSO_POLICY_NU, policy->ctrl);
  return DSO_POLICY_OK;
}

/* The same, by the policy's own clock: one control step after the other. */
static inline int dso_policy_act(dso_policy *policy, const double *seen, double *ctrl) {
  return dso_policy_act_at(policy, seen, policy->steps * DSO_POLICY_PERIOD, ctrl);
}

#endif
