// Checks of a call's contract: shapes, required arguments, overlap. Each throws before anything is written.
#pragma once

#include <cstring>

#include "errors.hpp"
#include "sequences.hpp"

namespace sara {
inline namespace SARA_ABI {

// What the other arguments of a batch are held to.
struct batch_extents {
  index_t layers, tokens, experts;   // of the logits
  sequences_view sequences;
};

// The name of a call, and the checks it makes of its arguments.
struct call_checks {
  const char* function;
  const batch_extents* batch = nullptr;   // told with a wrong shape: the argument at fault may be one of these

  // One sentence: "anchors must have shape [layers, sequences, experts] = [1, 1, 4], but has [1, 2, 4] (logits: ..., sequences: ...)".
  [[noreturn, gnu::cold, gnu::noinline]] void wrong_shape(const sentence& argument, const char* axes, const index_t* expected,
                                                          const index_t* found, int rank) const {
    sentence s;
    s << argument << " must have shape " << axes << " = ";
    s.shape(expected, rank) << ", but has ";
    s.shape(found, rank);
    if (batch && std::strncmp(argument.text(), "logits", 6) != 0 && std::strcmp(axes, "[1]") != 0) {
      const index_t logits[] = {batch->layers, batch->tokens, batch->experts};
      s << " (logits: [layers, tokens, experts] = ";
      s.shape(logits, 3) << ", sequences: " << batch->sequences.sequences();
      if (batch->sequences.layout() == token_layout::packed)
        s << ", packed by " << batch->sequences.offsets().size() << " offsets)";
      else
        s << " of " << batch->sequences.length() << " tokens)";
    }
    fail(function, s);
  }

  void require(bool holds, const char* text) const {
    if (!holds) fail(function, text);
  }

  void at_least_one(const char* argument, const char* what, index_t found) const {
    if (found < 1) fail(function, sentence(argument) << " must have at least one " << what << ", but has " << found);
  }

  template <class View> void required(const char* argument, const View& v) const {
    if (!v.given()) fail(function, sentence(argument) << " is required, but was not given");
  }

  // Optional [size], a vector_view or an integers_view; `axes` as "[tokens]".
  template <class View> void shape(const char* argument, const View& v, const char* axes, index_t size) const {
    if (!v.given()) return;
    const index_t expected[] = {size}, found[] = {v.size()};
    if (v.size() != size) wrong_shape(argument, axes, expected, found, 1);
    pointer(argument, v.data(), size);
  }

  // Optional [rows, columns].
  template <class T> void shape(const char* argument, const matrix_view<T>& m, const char* axes, index_t rows, index_t columns) const {
    if (!m.given()) return;
    const index_t expected[] = {rows, columns}, found[] = {m.rows(), m.columns()};
    if (m.rows() != rows || m.columns() != columns) wrong_shape(argument, axes, expected, found, 2);
    row_stride(argument, m.row_stride(), rows, columns);
    pointer(argument, m.data(), rows * columns);
  }

  // Optional [layers, rows, columns]; each matrix of a list is held to the shape.
  template <class T>
  void shape(const char* argument, const layers_view<T>& v, const char* axes, index_t layers, index_t rows, index_t columns) const {
    if (!v.given()) return;
    if (v.layers() != layers) {
      const index_t expected[] = {layers, rows, columns}, found[] = {v.layers(), v.rows(), v.columns()};
      wrong_shape(argument, axes, expected, found, 3);
    }
    for (index_t l = 0; l < (v.is_list() ? layers : 1); ++l) {   // the layers of a block are alike
      const matrix_view<T> m = v[l];
      const index_t expected[] = {layers, rows, columns}, found[] = {layers, m.rows(), m.columns()};
      if (m.rows() == rows && m.columns() == columns && rows >= 0 && columns >= 0 && (m.row_stride() >= columns || rows <= 1) &&
          (m.data() || rows * columns == 0))
        continue;
      sentence name = argument;
      if (v.is_list()) name << "[" << l << "]";
      if (m.rows() != rows || m.columns() != columns) wrong_shape(name, axes, expected, found, 3);
      row_stride(name.text(), m.row_stride(), rows, columns);
      pointer(name.text(), m.data(), rows * columns);
    }
  }

  // The sequences of a batch of `tokens` tokens.
  void shape(const sequences_view& v, index_t tokens) const {
    if (v.layout() == token_layout::packed) {
      if (v.sequences() < 0)
        fail(function, sentence("sequences: packed offsets must have sequences + 1 entries, but have ") << v.offsets().size());
      return pointer("sequences (packed offsets)", v.offsets().data(), v.offsets().size());
    }
    if (v.sequences() < 0 || v.length() < 0 || v.sequences() * v.length() != tokens)
      fail(function, sentence("sequences: ") << v.sequences() << " sequences of " << v.length() << " tokens do not make the " << tokens
                                             << " tokens of the other arguments");
  }

  void row_stride(const char* argument, index_t stride, index_t rows, index_t columns) const {
    if (rows < 0 || columns < 0)
      fail(function, sentence(argument) << " must not have a negative extent, but has " << rows << " rows and " << columns << " columns");
    if (stride < columns && rows > 1)
      fail(function, sentence(argument) << " must have a row stride of at least its " << columns << " columns, but has " << stride);
  }

  void pointer(const char* argument, const void* data, index_t elements) const {
    if (!data && elements > 0) null_pointer(argument, elements);
  }

 private:
  [[noreturn, gnu::cold, gnu::noinline]] void null_pointer(const char* argument, index_t elements) const {
    fail(function, sentence(argument) << " must point to its " << elements << " elements, but is a null pointer");
  }
};

// Where an argument lies: rows of bytes.
struct footprint {
  const char* data = nullptr;
  index_t rows = 0, row_bytes = 0, stride_bytes = 0;

  const char* end() const { return rows ? data + (rows - 1) * stride_bytes + row_bytes : data; }
};

template <class T> inline footprint footprint_of(const matrix_view<T>& m) {
  const index_t size = sizeof(T);
  if (m.rows() <= 0 || m.columns() <= 0) return {};
  return {reinterpret_cast<const char*>(m.data()), m.rows(), m.columns() * size, m.row_stride() * size};
}
template <class T> inline footprint footprint_of(const vector_view<T>& v) {
  return footprint_of(matrix_view<T>{v.data(), v.data() ? 1 : 0, v.size()});
}
inline footprint footprint_of(const integers_view& v) {
  return {static_cast<const char*>(v.data()), v.data() ? 1 : 0, v.bytes(), v.bytes()};
}

// Do two arguments share a byte? Rows of one stride (a single row has any) whose columns lie apart do not; otherwise the whole
// extents count.
inline bool overlap(const footprint& a, const footprint& b) {
  if (!a.rows || !b.rows || a.end() <= b.data || b.end() <= a.data) return false;
  const index_t stride = a.rows == 1 ? b.stride_bytes : a.stride_bytes;
  if ((a.rows == 1 && b.rows == 1) || (b.rows != 1 && b.stride_bytes != stride) || a.row_bytes > stride || b.row_bytes > stride)
    return true;
  const index_t apart = ((b.data - a.data) % stride + stride) % stride;   // of b's columns from a's
  return apart < a.row_bytes || apart + b.row_bytes > stride;
}

inline bool same_place(const footprint& a, const footprint& b) {
  return a.data == b.data && a.rows == b.rows && a.row_bytes == b.row_bytes && (a.rows <= 1 || a.stride_bytes == b.stride_bytes);
}

// The footprints of a call's arguments. `output` refuses an argument that shares memory with any before it; call it once for
// each output, after `input` for each input.
template <int capacity> class overlap_checks {
 public:
  explicit overlap_checks(const char* function) : function_(function) {}

  template <class V> void input(const char* name, const V& v) {
    entries_[count_] = make(name, v);
    if (entries_[count_].layers) ++count_;
  }

  // `twin`: an input that may lie in exactly the same place, layer by layer.
  template <class V> void output(const char* name, const V& v, const char* twin = nullptr) {
    entry mine = make(name, v);
    if (!mine.layers) return;
    for (index_t l = 1; l < mine.layers; ++l)   // an output's own layers lie apart
      for (index_t m = 0; m < (mine.view ? l : 1); ++m)
        if (overlap(mine[m], mine[l])) fail(function_, sentence(name) << ": its layers " << m << " and " << l << " share memory");
    for (int i = 0; i < count_; ++i) against(mine, entries_[i], twin);
    entries_[count_++] = mine;
  }

 private:
  struct entry {
    const char* name = nullptr;
    footprint one;   // the first layer
    index_t layers = 0;
    const char *begin = nullptr, *end = nullptr;   // all of it
    index_t layer_bytes = 0;
    const void* view = nullptr;   // a list's view, asked layer by layer
    footprint (*layer)(const void* view, index_t l) = nullptr;

    footprint operator[](index_t l) const {
      if (view) return layer(view, l);
      footprint f = one;
      f.data += l * layer_bytes;
      return f;
    }
  };

  template <class V> static entry make(const char* name, const V& v) {
    const footprint one = footprint_of(v);
    return {name, one, one.rows ? 1 : 0, one.data, one.end()};
  }
  template <class T> static entry make(const char* name, const layers_view<T>& v) {
    if (!v.layers()) return {};
    entry e = make(name, v[0]);
    if (!e.layers) return e;
    e.layers = v.layers();
    if (v.is_list()) {
      e.view = &v;
      e.layer = [](const void* view, index_t l) { return footprint_of((*static_cast<const layers_view<T>*>(view))[l]); };
    } else if (e.layers > 1) {
      e.layer_bytes = reinterpret_cast<const char*>(v[1].data()) - reinterpret_cast<const char*>(v[0].data());
    }
    for (index_t l = 1; l < e.layers; ++l) {
      const footprint f = e[l];
      e.begin = f.data < e.begin ? f.data : e.begin;
      e.end = f.end() > e.end ? f.end() : e.end;
    }
    return e;
  }

  void against(const entry& mine, const entry& other, const char* twin) const {
    if (mine.end <= other.begin || other.end <= mine.begin) return;
    const bool may_coincide = twin && std::strcmp(twin, other.name) == 0;
    for (index_t l = 0; l < mine.layers; ++l)
      for (index_t m = 0; m < other.layers; ++m) {
        const footprint a = mine[l], b = other[m];
        if (!overlap(a, b) || (may_coincide && l == m && same_place(a, b))) continue;
        fail(function_, sentence(mine.name) << " shares memory with " << other.name
                                            << (may_coincide ? "; it may be exactly it, or apart from it" : ""));
      }
  }

  const char* function_;
  entry entries_[capacity];
  int count_ = 0;
};

}   // namespace SARA_ABI
}   // namespace sara
