# SPDX-License-Identifier: Apache-2.0
#
# Makes the builds of the scripts use ccache. To be sourced in the root directory of the project.

export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_C_COMPILER_LAUNCHER=ccache
# Also cache sources that use the precompiled header.
export CCACHE_SLOPPINESS=pch_defines,time_macros
# Also use objects that were compiled in another build directory or clone.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
