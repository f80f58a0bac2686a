# Cortex-M4F with its FPU, under whatever ABI -DFLOAT_ABI says, on the board of tests/c/board.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR cortex-m4)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_C_FLAGS_INIT "-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16")
get_filename_component(board "${CMAKE_CURRENT_LIST_DIR}/../../board" ABSOLUTE)
set(BOARD_SOURCES "${board}/startup.c")
set(CMAKE_EXE_LINKER_FLAGS_INIT
  "-nostartfiles --specs=nano.specs --specs=rdimon.specs -u _printf_float -Wl,--no-warn-execstack -T ${board}/mps2-an386.ld")
