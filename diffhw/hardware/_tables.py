"""Measured and published figures behind `Technology`, as small tables with their sources. Plain numbers.

A source ends in how it was checked: (read) in the named public text, (recalled) known from the
paper and widely quoted but not re-read, (made) by running the named tool.
"""

HOROWITZ = "M. Horowitz, ISSCC 2014, fig. 1.1.9: 45 nm, 0.9 V (recalled, widely quoted)"
# bits: (pJ, um2)
INT_MULTIPLY = {8: (0.2, 282.0), 32: (3.1, 3495.0)}
INT_ADD = {8: (0.03, 36.0), 16: (0.05, 67.0), 32: (0.1, 137.0)}

JOUPPI = "N. Jouppi et al., ISCA 2021, table 2: 7 nm (recalled)"
# operation, bits: pJ
JOUPPI_7NM = {("multiply", 8): 0.07, ("multiply", 32): 1.48, ("add", 8): 0.007, ("add", 32): 0.03}

ALADDIN = "accelergy-aladdin-plug-in tables, 40 nm, 1 ns cycle (read)"
# component: (bits, pJ, leakage W, um2)
ALADDIN_40NM = {
    "register": (1, 0.009, 7e-8, 5.98),
    "adder": (32, 0.21, 2.3e-6, 278.0),
    "multiplier": (32, 12.68, 8e-5, 6350.0),
}

NOXIM = "Noxim bin/power.yaml, link of one bit line, node not stated (read)"
# mm: pJ per bit
NOXIM_LINK = {0.5: 0.025, 1.0: 0.0488, 1.5: 0.0725, 2.0: 0.0963, 2.5: 0.12, 3.0: 0.143}
ALADDIN_WIRE_PJ_PER_BIT_MM = 0.325  # accelergy-aladdin-plug-in: 0.2 x 1.627 fF/um x (1 V)^2 (read)

CACTI = (
    "CACTI 7, github.com/HewlettPackard/cacti commit 1ffd8dfb (made): plain RAM, 1 bank, 1 read-write port, "
    "itrs-hp cells, 350 K, objective 0:100:0:0:20"
)
# (bytes, port bits, node nm): (read pJ, mm2)
CACTI_SRAM = {
    (4096, 64, 45): (2.22431, 0.018712),
    (8192, 64, 45): (3.19849, 0.039048),
    (16384, 64, 45): (4.54186, 0.081475),
    (32768, 64, 45): (6.47569, 0.171706),
    (65536, 64, 45): (9.45317, 0.350527),
    (131072, 64, 45): (15.3988, 0.544980),
    (262144, 64, 45): (22.5057, 1.189469),
    (524288, 64, 45): (32.602, 2.399695),
    (1048576, 64, 45): (52.6751, 4.832297),
    (2097152, 64, 45): (88.2733, 7.856290),
    (4194304, 64, 45): (123.745, 16.896634),
    (8192, 32, 45): (2.51097, 0.037601),
    (8192, 128, 45): (5.04615, 0.034945),
    (8192, 256, 45): (10.7091, 0.035072),
    (32768, 32, 45): (5.19103, 0.162241),
    (32768, 128, 45): (9.88658, 0.133915),
    (32768, 256, 45): (16.7111, 0.132103),
    (131072, 32, 45): (10.7866, 0.700934),
    (131072, 128, 45): (20.8926, 0.596592),
    (131072, 256, 45): (34.4761, 0.492682),
    (524288, 32, 45): (24.7624, 2.381641),
    (524288, 128, 45): (48.285, 2.443407),
    (524288, 256, 45): (76.8213, 2.054712),
    (8192, 64, 22): (0.950009, 0.0092966),
    (65536, 64, 22): (2.86465, 0.0835881),
    (524288, 64, 22): (12.9871, 0.452829),
    (8192, 64, 32): (1.79064, 0.0197480),
    (65536, 64, 32): (5.33726, 0.177265),
    (524288, 64, 32): (18.6848, 1.213518),
    (8192, 64, 65): (5.53539, 0.0814755),
    (65536, 64, 65): (17.0448, 0.731377),
    (524288, 64, 65): (59.3112, 5.006864),
    (8192, 64, 90): (9.80771, 0.156200),
    (65536, 64, 90): (29.9902, 1.402154),
    (524288, 64, 90): (103.089, 9.598912),
}
CACTI_HP_LEAKAGE_W = {(524288, 22): 0.0992886, (1048576, 45): 1.11179}  # why these cells are not used

SRAM_LEAKAGE = (
    "N. Verma, A. Chandrakasan, JSSC 43(1) 2008: 65 nm low-power 256 kb SRAM, 2.2 uW at 0.35 V = 8.4 pW/bit "
    "and at least 10 x that at 1.0 V, so 84 pW/bit (read in a secondary text)"
)
SRAM_LEAKAGE_W_PER_BIT = 84e-12
SRAM_RETENTION = (
    "Y. Wang et al., JSSC 43(1) 2008: 65 nm ultra-low-power 1 Mb macro, 12 uA/Mb at the retention voltage "
    "of 0.5 V = 5.7 pW/bit (abstract, read)"
)
SRAM_RETENTION_W_PER_BIT = 12e-6 * 0.5 / 2**20

STILLMAKER = "A. Stillmaker, B. Baas, Integration 58, 2017, as tabulated by accelergy-library-plug-in (read)"
STILLMAKER_NODES = (130, 90, 65, 45, 32, 20, 16, 14, 10, 7)
# Row: from node, column: to node, both in the order above.
STILLMAKER_AREA = (
    (1, 0.44, 0.23, 0.16, 0.072, 0.033, 0.03, 0.027, 0.016, 0.0092),
    (2.3, 1, 0.53, 0.35, 0.16, 0.075, 0.067, 0.061, 0.036, 0.021),
    (4.3, 1.9, 1, 0.66, 0.31, 0.14, 0.13, 0.12, 0.068, 0.039),
    (6.4, 2.8, 1.5, 1, 0.46, 0.21, 0.19, 0.17, 0.1, 0.059),
    (14, 6.1, 3.3, 2.2, 1, 0.46, 0.41, 0.38, 0.22, 0.13),
    (30, 13, 7.1, 4.7, 2.2, 1, 0.89, 0.82, 0.48, 0.28),
    (34, 15, 7.9, 5.3, 2.4, 1.1, 1, 0.91, 0.54, 0.31),
    (37, 16, 8.7, 5.8, 2.7, 1.2, 1.1, 1, 0.59, 0.34),
    (63, 28, 15, 9.8, 4.5, 2.1, 1.9, 1.7, 1, 0.58),
    (110, 48, 25, 17, 7.8, 3.6, 3.2, 2.9, 1.7, 1),
)
# Energy of a node at supply V is proportional to a V^2 + b V + c.
STILLMAKER_ENERGY = (
    (7.171, -6.709, 2.904),
    (4.762, -4.781, 2.092),
    (3.755, -4.398, 1.975),
    (1.103, -0.362, 0.2767),
    (0.9559, -0.7823, 0.471),
    (0.373, -0.1582, 0.04104),
    (0.2958, -0.1241, 0.03024),
    (0.2363, -0.09675, 0.02239),
    (0.2068, -0.09311, 0.02375),
    (0.1776, -0.09097, 0.02447),
)
