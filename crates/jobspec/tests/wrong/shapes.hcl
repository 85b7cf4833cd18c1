job "web" {
  group = "x"
  constraint = []
  type {
  }
  datacenters = "dc1"
  meta = "x"
  group {
  }
  group "a" "b" {
  }
}
