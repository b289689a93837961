// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
//
// A process of one rank that speaks MPI and links magpie::mpi.
#include <magpie/mpi.h>
#include <magpie/work_stealing_executor.h>

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  {
    magpie::MpiThread mpi;
    magpie::WorkStealingExecutor workers({.threads = 1});
    workers.run(mpi.complete(MPI_Ibarrier, MPI_COMM_WORLD));
  }
  MPI_Finalize();
}
