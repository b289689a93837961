// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Product of two square matrices by quarters: four products of half the size side by side, then the
// four that are added to them, down to blocks that fit into the first cache. Real work with a
// memory side; the forks are few.

#include <support/bench.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <magpie/gather.h>
#include <magpie/task.h>
#include <oneapi/tbb/blocked_range2d.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_group.h>

namespace bench {
namespace {

using magpie::Task;

constexpr std::size_t kBlock = 32;

// A square part of a matrix.
template <class T>
struct View {
  T* first;
  std::size_t stride;

  View part(std::size_t row, std::size_t column) const {
    return {first + row * stride + column, stride};
  }
};
using In = View<const float>;
using Out = View<float>;

void multiply_block(In a, In b, Out c, bool add) {
  float sum[kBlock][kBlock] = {};
  for (std::size_t i = 0; i < kBlock; ++i) {
    for (std::size_t k = 0; k < kBlock; ++k) {
      const float factor = a.first[i * a.stride + k];
      for (std::size_t j = 0; j < kBlock; ++j) sum[i][j] += factor * b.first[k * b.stride + j];
    }
  }
  for (std::size_t i = 0; i < kBlock; ++i) {
    float* const row = c.first + i * c.stride;
    for (std::size_t j = 0; j < kBlock; ++j) row[j] = add ? row[j] + sum[i][j] : sum[i][j];
  }
}

Task<void> multiply(In a, In b, Out c, std::size_t n, bool add) {
  if (n == kBlock) {
    multiply_block(a, b, c, add);
    co_return;
  }
  const std::size_t h = n / 2;
  co_await magpie::gather(multiply(a, b, c, h, add),                        //
                          multiply(a, b.part(0, h), c.part(0, h), h, add),  //
                          multiply(a.part(h, 0), b, c.part(h, 0), h, add),  //
                          multiply(a.part(h, 0), b.part(0, h), c.part(h, h), h, add));
  co_await magpie::gather(multiply(a.part(0, h), b.part(h, 0), c, h, true),             //
                          multiply(a.part(0, h), b.part(h, h), c.part(0, h), h, true),  //
                          multiply(a.part(h, h), b.part(h, 0), c.part(h, 0), h, true),  //
                          multiply(a.part(h, h), b.part(h, h), c.part(h, h), h, true));
}

void on_tbb(In a, In b, Out c, std::size_t n, bool add) {
  if (n == kBlock) return multiply_block(a, b, c, add);
  const std::size_t h = n / 2;
  tbb::task_group group;
  group.run([=] { on_tbb(a.part(h, 0), b.part(0, h), c.part(h, h), h, add); });
  group.run([=] { on_tbb(a.part(h, 0), b, c.part(h, 0), h, add); });
  group.run([=] { on_tbb(a, b.part(0, h), c.part(0, h), h, add); });
  on_tbb(a, b, c, h, add);
  group.wait();
  group.run([=] { on_tbb(a.part(h, h), b.part(h, h), c.part(h, h), h, true); });
  group.run([=] { on_tbb(a.part(h, h), b.part(h, 0), c.part(h, 0), h, true); });
  group.run([=] { on_tbb(a.part(0, h), b.part(h, h), c.part(0, h), h, true); });
  on_tbb(a.part(0, h), b.part(h, 0), c, h, true);
  group.wait();
}

// As one writes it with oneTBB from the start: a loop over the blocks of the result.
void with_parallel_for(In a, In b, Out c, std::size_t n) {
  const std::size_t blocks = n / kBlock;
  tbb::parallel_for(
      tbb::blocked_range2d<std::size_t>(0, blocks, 0, blocks), [=](const auto& range) {
        for (std::size_t i = range.rows().begin(); i != range.rows().end(); ++i) {
          for (std::size_t j = range.cols().begin(); j != range.cols().end(); ++j) {
            for (std::size_t k = 0; k < blocks; ++k) {
              multiply_block(a.part(i * kBlock, k * kBlock), b.part(k * kBlock, j * kBlock),
                             c.part(i * kBlock, j * kBlock), k != 0);
            }
          }
        }
      });
}

// Small whole numbers, so that every sum is exact in a float, in whatever order it is formed.
struct Matrices {
  explicit Matrices(std::size_t size) : n(size), a(n * n), b(n * n), c(n * n, -1.0F) {
    std::uint32_t random = 1;
    const auto next = [&random] {
      random = random * 1'664'525U + 1'013'904'223U;
      return static_cast<float>(random >> 30U);  // 0 to 3
    };
    for (float& x : a) x = next();
    for (float& x : b) x = next();
  }

  In left() const { return {a.data(), n}; }
  In right() const { return {b.data(), n}; }
  Out result() { return {c.data(), n}; }

  // C x = A (B x) for a vector of different numbers: a checksum of every row that costs n^2.
  bool correct() {
    std::vector<std::int64_t> x(n);
    for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<std::int64_t>(i * 7919 % 104'729) + 1;
    const bool ok = times(c, x) == times(a, times(b, x));
    c.assign(n * n, -1.0F);  // so that the next look sees a new result
    return ok;
  }

 private:
  std::vector<std::int64_t> times(const std::vector<float>& m,
                                  const std::vector<std::int64_t>& x) const {
    std::vector<std::int64_t> y(n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) y[i] += static_cast<std::int64_t>(m[i * n + j]) * x[j];
    }
    return y;
  }

  std::size_t n;
  std::vector<float> a;
  std::vector<float> b;
  std::vector<float> c;
};

}  // namespace

void register_benchmarks(const Options& options) {
  const std::size_t n = options.full ? 2048 : 1024;
  for (const std::size_t threads : options.threads) {
    add("matmul", "magpie", threads, [=](benchmark::State& state) {
      Matrices m(n);
      measure_magpie(
          state, threads,
          [&](auto& executor) {
            executor.run(multiply(m.left(), m.right(), m.result(), n, false));
          },
          [&] { return m.correct(); });
    });
    add("matmul", "tbb_task_group", threads, [=](benchmark::State& state) {
      Matrices m(n);
      measure_tbb(
          state, threads, [&] { on_tbb(m.left(), m.right(), m.result(), n, false); },
          [&] { return m.correct(); });
    });
    add("matmul", "tbb_parallel_for", threads, [=](benchmark::State& state) {
      Matrices m(n);
      measure_tbb(
          state, threads, [&] { with_parallel_for(m.left(), m.right(), m.result(), n); },
          [&] { return m.correct(); });
    });
  }
}

}  // namespace bench
