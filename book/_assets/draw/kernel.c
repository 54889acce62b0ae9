// One image by a flow, in WebAssembly: the network of genlib.models.flow, and the decoder of
// genlib.models.tokenizer. scripts/kernel.py compiles it; weights.js hands it the shipped arrays.
//
// All work is done by one function, `multiply`: rows of numbers times a matrix. A convolution is
// the same work, with rows that lie apart in the image and overlap. It takes four rows and eight
// columns at a time, so that its sums stay in registers.

#include <stdint.h>
#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#define INLINE static inline __attribute__((always_inline))
#define ROWS 4    // of a tile
#define COLUMNS 8 // of a tile: two vectors of four
#define SIDE 8    // an image is 8 × 8 tokens,
#define GRID 16   // 16 × 16 latents,
#define IMAGE 64  // 64 × 64 pixels
#define TOKENS (SIDE * SIDE)
#define WAVES 64 // numbers that tell a time

// ---------------------------------------------------------------- memory

extern unsigned char __heap_base;
static uintptr_t end = 0; // of what is in use

// Gives memory for good: networks are made once and stay.
EXPORT(take) void *take(int bytes) {
  if (!end) end = ((uintptr_t)&__heap_base + 63) / 64 * 64;
  uintptr_t start = end;
  end += (bytes + 63) / 64 * 64;
  long missing = (long)(end + 65535) / 65536 - __builtin_wasm_memory_size(0);
  if (missing > 0 && __builtin_wasm_memory_grow(0, missing) == (unsigned long)-1) __builtin_trap();
  return (void *)start;
}

INLINE v128_t load(const float *x) { return wasm_v128_load(x); }
INLINE void store(float *x, v128_t v) { wasm_v128_store(x, v); }
INLINE float larger(float a, float b) { return a > b ? a : b; }
INLINE v128_t all(float x) { return wasm_f32x4_splat(x); }

// ---------------------------------------------------------------- what the processor is asked for

#ifdef __wasm_relaxed_simd__
// Relaxed: a processor may round once or twice, whichever is its fast way.
INLINE v128_t multiply_add(v128_t a, v128_t b, v128_t sum) {
  return __builtin_wasm_relaxed_madd_f32x4(a, b, sum);
}
// Adds four products of bytes to each of four sums; `b` is 0 to 127, so every processor agrees.
// Weight k of column c stands at byte PLACE(c, k) of `a`, its number at each fourth byte of `b`.
#define PLACE(c, k) ((c)*4 + (k))
INLINE v128_t multiply_add_bytes(v128_t a, v128_t b, v128_t sum) {
  return __builtin_wasm_relaxed_dot_i8x16_i7x16_add_s_i32x4(a, b, sum);
}
#else
#define PLACE(c, k) ((k) / 2 * 8 + (c)*2 + (k) % 2) // pairs of k, which one instruction adds
INLINE v128_t multiply_add(v128_t a, v128_t b, v128_t sum) {
  return wasm_f32x4_add(wasm_f32x4_mul(a, b), sum);
}
INLINE v128_t multiply_add_bytes(v128_t a, v128_t b, v128_t sum) {
  v128_t numbers = wasm_i16x8_extend_low_i8x16(b); // the same four, twice
  v128_t first = wasm_i32x4_shuffle(numbers, numbers, 0, 0, 0, 0);
  v128_t last = wasm_i32x4_shuffle(numbers, numbers, 1, 1, 1, 1);
  sum = wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(a), first));
  return wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(a), last));
}
#endif

// e^x of four numbers, to a few units in the last place: 2^n times a polynomial on [-ln2/2, ln2/2].
INLINE v128_t exponential(v128_t x) {
  x = wasm_f32x4_pmin(wasm_f32x4_pmax(x, all(-87)), all(88));
  v128_t n = wasm_f32x4_nearest(wasm_f32x4_mul(x, all(1.44269504f)));
  x = multiply_add(n, all(-0.693359375f), x);
  x = multiply_add(n, all(2.12194440e-4f), x);
  static const float terms[] = {1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f, 1, 1};
  v128_t sum = all(1 / 5040.f);
  for (int i = 0; i < 7; i++) sum = multiply_add(sum, x, all(terms[i]));
  v128_t power =
      wasm_i32x4_shl(wasm_i32x4_add(wasm_i32x4_trunc_sat_f32x4(n), wasm_i32x4_splat(127)), 23);
  return wasm_f32x4_mul(sum, power);
}

INLINE v128_t silu(v128_t x) {
  return wasm_f32x4_div(x, wasm_f32x4_add(all(1), exponential(wasm_f32x4_neg(x))));
}

INLINE float sum_of(v128_t v) {
  return (wasm_f32x4_extract_lane(v, 0) + wasm_f32x4_extract_lane(v, 1)) +
         (wasm_f32x4_extract_lane(v, 2) + wasm_f32x4_extract_lane(v, 3));
}

// ---------------------------------------------------------------- matrices

// What lies in memory in the order in which tiles read it: panels of eight columns.
typedef struct {
  int rows,
      columns;   // how many numbers go in and come out; columns are filled up to a multiple of 8
  float *floats; // (columns / 8, rows, 8), or
  int8_t *bytes; // (columns / 8, rows / 4, 2, 16): quantized, each column with its own scale
  float *scales; // of the columns
  float *sums;   // of the columns' weights, as they are after quantization
} Matrix;

INLINE float half(uint16_t h) { // float16 to float32
  union {
    uint32_t bits;
    float value;
  } v = {(uint32_t)(h & 0x7fff) << 13};
  v.value *= 0x1p112f; // mends the exponent, and small numbers with it
  v.bits |= (uint32_t)(h & 0x8000) << 16;
  return v.value;
}

// Returns n numbers as float32, with zeros up to a multiple of 8.
EXPORT(vector) float *vector(const uint16_t *x, int n) {
  float *made = take((n + 7) / 8 * 8 * sizeof(float));
  for (int i = 0; i < n; i++) made[i] = half(x[i]);
  return made;
}

// Packs a matrix (rows, columns) of float16; quantized, if asked for, to 255 levels a column.
EXPORT(matrix) Matrix *matrix(const uint16_t *x, int rows, int columns, int quantized) {
  Matrix *m = take(sizeof(Matrix));
  int panels = (columns + 7) / 8;
  *m = (Matrix){rows, panels * 8, 0, 0, 0, 0};
  if (!quantized) {
    float *to = m->floats = take(panels * rows * 8 * sizeof(float));
    for (int p = 0; p < panels; p++)
      for (int k = 0; k < rows; k++)
        for (int c = p * 8; c < p * 8 + 8; c++) *to++ = c < columns ? half(x[k * columns + c]) : 0;
    return m;
  }
  m->bytes = take(panels * rows * 8);
  m->scales = take(panels * 8 * sizeof(float));
  m->sums = take(panels * 8 * sizeof(float));
  for (int c = 0; c < columns; c++) {
    float most = 1e-12f;
    for (int k = 0; k < rows; k++) most = larger(most, __builtin_fabsf(half(x[k * columns + c])));
    int sum = 0;
    for (int k = 0; k < rows; k++) {
      int q = (int)__builtin_rintf(half(x[k * columns + c]) / most * 127);
      m->bytes[(c / 8 * (rows / 4) + k / 4) * 32 + c % 8 / 4 * 16 + PLACE(c % 4, k % 4)] = q;
      sum += q;
    }
    m->scales[c] = most / 127;
    m->sums[c] = most / 127 * sum;
  }
  return m;
}

// ---------------------------------------------------------------- rows times a matrix

// Where rows are read. A row has `parts` runs of `length` numbers each, `skip` apart: one run is a
// row of a matrix; three runs are the rows of a 3×3 patch, whose pixels overlap those of the next.
typedef struct {
  const float *start;
  int stride, parts, length, skip;
} Rows;

// Where sums go: plus a bias; or times a gate and onto what is there.
typedef struct {
  float *start;
  int stride;
  const float *bias, *gate;
  int add;
} Target;

INLINE void put(Target t, int row, int column, v128_t v) {
  float *at = t.start + row * t.stride + column;
  if (t.bias) v = wasm_f32x4_add(v, load(t.bias + column));
  if (t.gate) v = wasm_f32x4_mul(v, load(t.gate + column));
  if (t.add) v = wasm_f32x4_add(v, load(at));
  store(at, v);
}

INLINE void tile(int rows, Rows a, int row, const float *panel, Target t, int column) {
  v128_t sums[ROWS][2];
  for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = all(0);
  for (int part = 0; part < a.parts; part++) {
    const float *x = a.start + row * a.stride + part * a.skip;
    for (int k = 0; k < a.length; k++, panel += COLUMNS) {
      v128_t low = load(panel), high = load(panel + 4);
#pragma clang loop unroll(full)
      for (int r = 0; r < rows; r++) {
        v128_t number = wasm_v128_load32_splat(x + r * a.stride + k);
        sums[r][0] = multiply_add(number, low, sums[r][0]);
        sums[r][1] = multiply_add(number, high, sums[r][1]);
      }
    }
  }
  for (int r = 0; r < rows; r++) {
    put(t, row + r, column, sums[r][0]);
    put(t, row + r, column + 4, sums[r][1]);
  }
}

static void multiply_floats(Rows a, int rows, const float *panels, int columns, Target t) {
  for (int c = 0; c < columns; c += COLUMNS, panels += a.parts * a.length * COLUMNS) {
    int row = 0;
    for (; row + ROWS <= rows; row += ROWS) tile(ROWS, a, row, panels, t, c);
    for (; row < rows; row++) tile(1, a, row, panels, t, c);
  }
}

// Numbers as 0 to 127, between the least and the largest of them: x is about low + scale × byte.
typedef struct {
  float low, scale;
} Range;

static Range quantize(const float *x, int n, uint8_t *bytes) {
  v128_t least = all(0), most = all(0); // 0 is always among them: the rim of an image
  for (int i = 0; i < n; i += 4) {
    least = wasm_f32x4_pmin(least, load(x + i));
    most = wasm_f32x4_pmax(most, load(x + i));
  }
  float low = 0, high = 1e-12f;
  for (int i = 0; i < 4; i++) {
    low = -larger(-low, -((float *)&least)[i]);
    high = larger(high, ((float *)&most)[i]);
  }
  Range range = {low, (high - low) / 127};
  v128_t scale = all(127 / (high - low)), shift = all(-low * 127 / (high - low));
  for (int i = 0; i < n; i += 4) {
    v128_t q =
        wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(multiply_add(load(x + i), scale, shift)));
    q = wasm_u8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(q, q), q);
    wasm_v128_store32_lane(bytes + i, q, 0);
  }
  return range;
}

INLINE void tile_bytes(int rows, Rows a, const uint8_t *x, const Range *ranges, int row,
                       const Matrix *m, Target t, int column) {
  v128_t sums[ROWS][2];
  for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = wasm_i32x4_splat(0);
  const int8_t *panel = m->bytes + column * m->rows;
  for (int part = 0; part < a.parts; part++) {
    const uint8_t *at = x + row * a.stride + part * a.skip;
    for (int k = 0; k < a.length; k += 4, panel += 32) {
      v128_t low = wasm_v128_load(panel), high = wasm_v128_load(panel + 16);
#pragma clang loop unroll(full)
      for (int r = 0; r < rows; r++) {
        v128_t four = wasm_v128_load32_splat(at + r * a.stride + k);
        sums[r][0] = multiply_add_bytes(low, four, sums[r][0]);
        sums[r][1] = multiply_add_bytes(high, four, sums[r][1]);
      }
    }
  }
  for (int r = 0; r < rows; r++)
    for (int h = 0; h < 2; h++) {
      int c = column + 4 * h;
      v128_t v = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sums[r][h]), load(m->scales + c));
      v = wasm_f32x4_mul(v, all(ranges[row + r].scale));
      put(t, row + r, c, multiply_add(load(m->sums + c), all(ranges[row + r].low), v));
    }
}

static void multiply_bytes(Rows a, int rows, const uint8_t *x, const Range *ranges, const Matrix *m,
                           Target t) {
  for (int c = 0; c < m->columns; c += COLUMNS) {
    int row = 0;
    for (; row + ROWS <= rows; row += ROWS) tile_bytes(ROWS, a, x, ranges, row, m, t, c);
    for (; row < rows; row++) tile_bytes(1, a, x, ranges, row, m, t, c);
  }
}

static uint8_t *bytes; // room for the bytes of the largest rows
static int room = 0;

static void need(int numbers) {
  if (numbers > room) bytes = take(room = numbers);
}

// Rows times a matrix, in floats or, if the matrix is quantized, in bytes: each row has its range.
static void multiply(Rows a, int rows, const Matrix *m, Target t) {
  if (m->floats) return multiply_floats(a, rows, m->floats, m->columns, t);
  Range ranges[IMAGE];
  for (int r = 0; r < rows; r++)
    ranges[r] = quantize(a.start + r * a.stride, a.length, bytes + r * a.stride);
  multiply_bytes(a, rows, bytes, ranges, m, t);
}

// ---------------------------------------------------------------- the flow

typedef struct {
  float *attention_norm, *swiglu_norm;
  Matrix *qkv, *out, *gate_up, *down, *modulation;
} Block;

// In the order in which the arrays stand in a file of weights.
typedef struct {
  Block blocks[32];
  float *norm;
  Matrix *read_text;
  float *read_text_bias;
  Matrix *read_time;
  float *read_time_bias;
  Matrix *mix;
  float *mix_bias;
  Matrix *read;
  float *read_bias;
  float *place;
  Matrix *head;
  float *head_bias;
  Matrix *read_width;
  float *read_width_bias; // of a shortcut only
} Parts;

typedef struct {
  Parts parts;
  int layers, width, heads, kv_heads, hidden, channels;
  float epsilon;
  float *cos, *sin; // of the rotary positions, (TOKENS, head size); each second sine is negative
  float *x, *h, *qkv, *attended, *gate_up, *modulation, *known, *condition, *tokens, *keys, *values,
      *scores;
} Flow;

// Makes a flow of its parts, `7 × layers` of the blocks and then the others.
EXPORT(flow)
Flow *flow(void **parts, int layers, int width, int heads, int kv_heads, int hidden, int channels,
           int shortcut, float epsilon) {
  Flow *f = take(sizeof(Flow));
  f->layers = layers, f->width = width, f->heads = heads, f->kv_heads = kv_heads,
  f->hidden = hidden;
  f->channels = channels, f->epsilon = epsilon;
  __builtin_memcpy(f->parts.blocks, parts, layers * sizeof(Block));
  __builtin_memcpy(&f->parts.norm, parts + 7 * layers, (shortcut ? 14 : 12) * sizeof(void *));
  int size = width / heads, all_heads = (heads + 2 * kv_heads) * size;
#define ROOM(n) take((n) * sizeof(float))
  f->cos = ROOM(TOKENS * size), f->sin = ROOM(TOKENS * size);
  f->x = ROOM(TOKENS * width), f->h = ROOM(TOKENS * width), f->qkv = ROOM(TOKENS * all_heads);
  f->attended = ROOM(TOKENS * width), f->gate_up = ROOM(TOKENS * 2 * hidden);
  f->modulation = ROOM(6 * width), f->known = ROOM(width), f->condition = ROOM(width);
  f->tokens = ROOM(TOKENS * 4 * channels);
  need(TOKENS * larger(2 * hidden, width));
  f->keys = ROOM(TOKENS * size), f->values = ROOM(TOKENS * size), f->scores = ROOM(TOKENS * TOKENS);
  return f;
}

EXPORT(cosines) float *cosines(Flow *f) { return f->cos; }
EXPORT(sines) float *sines(Flow *f) { return f->sin; }

static Rows rows_of(const float *x, int width) { return (Rows){x, width, 1, width, 0}; }
static Target onto(float *x, int width, const float *bias) {
  return (Target){x, width, bias, 0, 0};
}

static void silu_all(float *x, int n) {
  for (int i = 0; i < n; i += 4) store(x + i, silu(load(x + i)));
}

// RMSNorm of each token, shifted and scaled if there is a condition.
static void normalize(const Flow *f, const float *scale, const float *shift, const float *more) {
  int width = f->width;
  for (int t = 0; t < TOKENS; t++) {
    const float *x = f->x + t * width;
    v128_t squares = all(0);
    for (int i = 0; i < width; i += 4) squares = multiply_add(load(x + i), load(x + i), squares);
    v128_t by = all(1 / __builtin_sqrtf(sum_of(squares) / width + f->epsilon));
    for (int i = 0; i < width; i += 4) {
      v128_t v = wasm_f32x4_mul(wasm_f32x4_mul(load(x + i), by), load(scale + i));
      if (shift) v = multiply_add(v, wasm_f32x4_add(all(1), load(more + i)), load(shift + i));
      store(f->h + t * width + i, v);
    }
  }
}

static void softmax(float *x, int n, float scale) {
  v128_t most = load(x), sum = all(0);
  for (int i = 4; i < n; i += 4) most = wasm_f32x4_pmax(most, load(x + i));
  float m = ((float *)&most)[0];
  for (int i = 1; i < 4; i++) m = larger(m, ((float *)&most)[i]);
  for (int i = 0; i < n; i += 4) {
    v128_t e = exponential(wasm_f32x4_mul(wasm_f32x4_sub(load(x + i), all(m)), all(scale)));
    store(x + i, e);
    sum = wasm_f32x4_add(sum, e);
  }
  v128_t by = all(1 / sum_of(sum));
  for (int i = 0; i < n; i += 4) store(x + i, wasm_f32x4_mul(load(x + i), by));
}

// Turns the pairs of each query and key by the place of their token.
static void rotate(const Flow *f, int stride, int size) {
  for (int t = 0; t < TOKENS; t++)
    for (int h = 0; h < f->heads + f->kv_heads; h++)
      for (int i = 0; i < size; i += 4) {
        float *at = f->qkv + t * stride + h * size + i;
        v128_t v = load(at), swapped = wasm_i32x4_shuffle(v, v, 1, 0, 3, 2);
        v = wasm_f32x4_mul(v, load(f->cos + t * size + i));
        store(at, multiply_add(swapped, load(f->sin + t * size + i), v));
      }
}

static void attend(const Flow *f, int stride, int size) {
  rotate(f, stride, size);
  for (int h = 0; h < f->heads; h++) {
    int kv = h / (f->heads / f->kv_heads);
    const float *k = f->qkv + (f->heads + kv) * size, *v = k + f->kv_heads * size;
    for (int t = 0; t < TOKENS; t++) { // keys as columns, values as rows, both in panels
      for (int i = 0; i < size; i++) f->keys[(t / 8 * size + i) * 8 + t % 8] = k[t * stride + i];
      for (int i = 0; i < size; i++)
        f->values[(i / 8 * TOKENS + t) * 8 + i % 8] = v[t * stride + i];
    }
    Rows queries = {f->qkv + h * size, stride, 1, size, 0};
    multiply_floats(queries, TOKENS, f->keys, TOKENS, onto(f->scores, TOKENS, 0));
    for (int t = 0; t < TOKENS; t++)
      softmax(f->scores + t * TOKENS, TOKENS, 1 / __builtin_sqrtf(size));
    Target target = onto(f->attended + h * size, f->heads * size, 0);
    multiply_floats(rows_of(f->scores, TOKENS), TOKENS, f->values, size, target);
  }
}

static void block(const Flow *f, const Block *b) {
  int width = f->width, size = width / f->heads, stride = (f->heads + 2 * f->kv_heads) * size;
  float *m = f->modulation; // shift, scale and gate of attention, then of SwiGLU
  multiply(rows_of(f->condition, width), 1, b->modulation, onto(m, 6 * width, 0));
  normalize(f, b->attention_norm, m, m + width);
  multiply(rows_of(f->h, width), TOKENS, b->qkv, onto(f->qkv, stride, 0));
  attend(f, stride, size);
  multiply(rows_of(f->attended, width), TOKENS, b->out, (Target){f->x, width, 0, m + 2 * width, 1});
  normalize(f, b->swiglu_norm, m + 3 * width, m + 4 * width);
  multiply(rows_of(f->h, width), TOKENS, b->gate_up, onto(f->gate_up, 2 * f->hidden, 0));
  for (int t = 0; t < TOKENS; t++)
    for (int i = 0; i < f->hidden; i += 4) {
      float *gate = f->gate_up + t * 2 * f->hidden + i;
      store(gate, wasm_f32x4_mul(silu(load(gate)), load(gate + f->hidden)));
    }
  Rows gated = {f->gate_up, 2 * f->hidden, 1, f->hidden, 0};
  multiply(gated, TOKENS, b->down, (Target){f->x, width, 0, m + 5 * width, 1});
}

// Moves 2 × 2 latents into one token, or back: the same loop, read the other way.
static void exchange(float *latents, float *tokens, int channels, int back) {
  for (int y = 0; y < 2 * SIDE; y++)
    for (int x = 0; x < 2 * SIDE; x++)
      for (int c = 0; c < channels; c++) {
        float *a = latents + (y * 2 * SIDE + x) * channels + c;
        float *b = tokens + ((y / 2 * SIDE + x / 2) * 4 + y % 2 * 2 + x % 2) * channels + c;
        if (back) *a = *b;
        else *b = *a;
      }
}

// Flow.call for one image: from its points, its text, and the waves of time and width, a velocity.
EXPORT(velocity)
void velocity(const Flow *f, float *x, const float *text, const float *time, const float *step,
              float *v) {
  const Parts *p = &f->parts;
  int width = f->width, numbers = 4 * f->channels;
  multiply(rows_of(time, WAVES), 1, p->read_time, onto(f->known, width, p->read_time_bias));
  multiply(rows_of(text, p->read_text->rows), 1, p->read_text,
           (Target){f->known, width, p->read_text_bias, 0, 1});
  if (p->read_width)
    multiply(rows_of(step, WAVES), 1, p->read_width,
             (Target){f->known, width, p->read_width_bias, 0, 1});
  silu_all(f->known, width);
  multiply(rows_of(f->known, width), 1, p->mix, onto(f->condition, width, p->mix_bias));
  silu_all(f->condition, width);

  exchange(x, f->tokens, f->channels, 0);
  __builtin_memcpy(f->x, p->place, TOKENS * width * sizeof(float));
  multiply(rows_of(f->tokens, numbers), TOKENS, p->read, (Target){f->x, width, p->read_bias, 0, 1});
  for (int i = 0; i < f->layers; i++) block(f, &p->blocks[i]);
  normalize(f, p->norm, 0, 0);
  multiply(rows_of(f->h, width), TOKENS, p->head, onto(f->tokens, numbers, p->head_bias));
  exchange(v, f->tokens, f->channels, 1);
}

// ---------------------------------------------------------------- the decoder

typedef struct {
  void *parts[64]; // kernel and bias of each convolution
  int blocks, channels, width, pixel_width;
  float *latents, *x, *h, *between, *wide, *pixels, *smooth, *colours; // images with a rim of zeros
} Decoder;

EXPORT(decoder)
Decoder *decoder(void **parts, int count, int blocks, int channels, int width, int pixel_width) {
  Decoder *d = take(sizeof(Decoder));
  __builtin_memcpy(d->parts, parts, count * sizeof(void *));
  d->blocks = blocks, d->channels = channels, d->width = width, d->pixel_width = pixel_width;
  int rim = (GRID + 2) * (GRID + 2), large = (IMAGE + 2) * (IMAGE + 2);
  d->latents = ROOM(rim * channels);
  d->x = ROOM(rim * width), d->h = ROOM(rim * width), d->between = ROOM(rim * width);
  d->wide = ROOM(GRID * 16 * pixel_width);
  d->pixels = ROOM(large * pixel_width), d->smooth = ROOM(large * pixel_width);
  d->colours = ROOM(large * 8);
  need(larger(rim * width, large * pixel_width));
  return d;
}

INLINE float *inside(float *x, int side, int channels) { return x + (side + 3) * channels; }

// A 3×3 convolution: one product of matrices for each row of pixels.
static void convolve(float *x, int side, int channels, const Matrix *m, const float *bias, float *y,
                     int outputs, int add) {
  int stride = (side + 2) * channels;
  Range range = {0, 0}, ranges[IMAGE];
  if (m->bytes) range = quantize(x, (side + 2) * stride, bytes); // overlapping rows share a range
  for (int i = 0; i < side; i++) ranges[i] = range;
  for (int row = 0; row < side; row++) {
    Rows patches = {x + row * stride, channels, 3, 3 * channels, stride};
    Target target = {inside(y, side, outputs) + row * (side + 2) * outputs, outputs, bias, 0, add};
    if (m->bytes) multiply_bytes(patches, side, bytes + row * stride, ranges, m, target);
    else multiply(patches, side, m, target);
  }
}

static void silu_inside(const float *x, float *y, int side, int channels) {
  for (int row = 0; row < side; row++) {
    int at = (side + 3 + row * (side + 2)) * channels;
    for (int i = at; i < at + side * channels; i += 4) store(y + i, silu(load(x + i)));
  }
}

// Tokenizer.decode for one image: latents (16, 16, channels) to pixels, RGBA, (64, 64, 4).
EXPORT(decode) void decode(Decoder *d, const float *latents, uint8_t *rgba) {
  void **p = d->parts;
  int width = d->width, thin = d->pixel_width;
  for (int y = 0; y < GRID; y++)
    for (int i = 0; i < GRID * d->channels; i++) {
      float v = latents[y * GRID * d->channels + i];
      inside(d->latents, GRID, d->channels)[y * (GRID + 2) * d->channels + i] = v < -1  ? -1
                                                                                : v > 1 ? 1
                                                                                        : v;
    }
  convolve(d->latents, GRID, d->channels, p[0], p[1], d->x, width, 0);
  p += 2;
  for (int i = 0; i < d->blocks; i++, p += 4) {
    silu_inside(d->x, d->h, GRID, width);
    convolve(d->h, GRID, width, p[0], p[1], d->between, width, 0);
    silu_inside(d->between, d->between, GRID, width);
    convolve(d->between, GRID, width, p[2], p[3], d->x, width, 1);
  }
  for (int row = 0; row < GRID; row++) { // each place becomes 4 × 4 pixels
    Rows places = {inside(d->x, GRID, width) + row * (GRID + 2) * width, width, 1, width, 0};
    multiply(places, GRID, p[0], onto(d->wide, 16 * thin, p[1]));
    for (int y = 0; y < 4; y++)
      for (int x = 0; x < GRID; x++)
        __builtin_memcpy(inside(d->pixels, IMAGE, thin) +
                             ((4 * row + y) * (IMAGE + 2) + 4 * x) * thin,
                         d->wide + (x * 16 + y * 4) * thin, 4 * thin * sizeof(float));
  }
  convolve(d->pixels, IMAGE, thin, p[2], p[3], d->smooth, thin, 0);
  silu_inside(d->smooth, d->smooth, IMAGE, thin);
  convolve(d->smooth, IMAGE, thin, p[4], p[5], d->colours, 8, 0);
  for (int i = 0; i < IMAGE * IMAGE; i++) {
    const float *colour = inside(d->colours, IMAGE, 8) + (i / IMAGE * (IMAGE + 2) + i % IMAGE) * 8;
    v128_t v = wasm_f32x4_pmin(wasm_f32x4_pmax(load(colour), all(-1)), all(1));
    v = wasm_f32x4_nearest(wasm_f32x4_mul(wasm_f32x4_add(v, all(1)), all(127.5f)));
    v = wasm_i32x4_trunc_sat_f32x4(v);
    v = wasm_u8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(v, v), v);
    wasm_v128_store32_lane(rgba + 4 * i, v, 0);
    rgba[4 * i + 3] = 255;
  }
}
