// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
//
// Heat in a rod, over several processes and all their cores: mpirun -n 3 halo. Each process has a
// part of the rod, and each step needs the cells beside it from its neighbours. These messages are
// under way while the cells that need none of them are computed. Link magpie::mpi.

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <utility>
#include <vector>

#include <magpie/magpie.h>
#include <magpie/mpi.h>

namespace {

using namespace magpie;
using namespace std::chrono_literals;

constexpr std::size_t kCells = 120'000;  // of the whole rod
constexpr int kSteps = 50;

struct Part {
  int rank;
  int ranks;
  std::vector<double> cells;  // with one of each neighbour's, first and last
  std::vector<double> next;

  int left() const { return rank > 0 ? rank - 1 : MPI_PROC_NULL; }
  int right() const { return rank + 1 < ranks ? rank + 1 : MPI_PROC_NULL; }
  std::size_t last() const { return cells.size() - 2; }
  void step(std::size_t i) {
    next[i] = cells[i] + 0.25 * (cells[i - 1] - 2 * cells[i] + cells[i + 1]);
  }
};

Task<void> exchange(MpiThread& mpi, Part& part) {
  double* const cell = part.cells.data();
  const std::size_t last = part.last();
  auto send = [&](const double* from, int to) {
    return mpi.complete(MPI_Isend, from, 1, MPI_DOUBLE, to, 0, MPI_COMM_WORLD);
  };
  auto receive = [&](double* into, int from) {
    return mpi.receive(into, 1, MPI_DOUBLE, from, 0, MPI_COMM_WORLD);
  };
  co_await gather(send(cell + 1, part.left()), send(cell + last, part.right()),
                  receive(cell, part.left()), receive(cell + last + 1, part.right()));
}

Task<void> run(MpiThread& mpi, Part& part) {
  const std::size_t last = part.last();
  for (int step = 0; step < kSteps; ++step) {
    auto inner = parallel_for(std::size_t{2}, last, 0, [&](std::size_t i) { part.step(i); });
    co_await timeout(gather(exchange(mpi, part), std::move(inner)), 60s);
    // The rod's ends let no heat through.
    if (part.left() == MPI_PROC_NULL) part.cells.front() = part.cells[1];
    if (part.right() == MPI_PROC_NULL) part.cells.back() = part.cells[last];
    part.step(1);
    part.step(last);
    std::swap(part.cells, part.next);
  }
}

Task<double> total(MpiThread& mpi, const Part& part) {
  double mine = 0;
  for (std::size_t i = 1; i <= part.last(); ++i) mine += part.cells[i];
  double all = 0;
  co_await mpi.complete(MPI_Iallreduce, &mine, &all, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  co_return all;
}

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided);
  Part part{};
  MPI_Comm_rank(MPI_COMM_WORLD, &part.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &part.ranks);
  {
    MpiThread mpi;                 // before the executor, which ends its tasks first
    WorkStealingExecutor workers;  // as many as there are cores
    const auto cells = kCells / static_cast<std::size_t>(part.ranks);
    part.cells.assign(cells + 2, part.rank == 0 ? 1.0 : 0.0);  // the first part is hot
    part.next = part.cells;
    workers.run(run(mpi, part));
    const double heat = workers.run(total(mpi, part));
    if (part.rank == 0) {
      std::printf("%d processes, %d steps: heat %.3f, where the first part ends %.3f\n", part.ranks,
                  kSteps, heat, part.cells[part.last()]);
    }
  }
  MPI_Finalize();
}
