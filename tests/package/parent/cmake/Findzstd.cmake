# SPDX-License-Identifier: Apache-2.0
#
# A module that defines another target than that of msb.
message(FATAL_ERROR "msb uses the Findzstd.cmake of the enclosing project")
